"""Reading weights of any origin, without trusting them."""
