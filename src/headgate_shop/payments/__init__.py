"""Another company's payment API, played: test cards, captures, refunds, and bad days on demand."""
