"""The storefront: the pages that customers see, rendered here from what other services say."""
