"""Other companies' systems kept in step: products, invoices and messages go out, orders come in."""
