"""Networks that tests are made with."""
