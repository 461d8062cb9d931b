"""What a call costs: prices per million tokens, the arithmetic, and where prices come from."""

from .book import PriceBook, load_lists, price_in, price_sources
from .price import LOCAL, Price, at_standard_rates, cost_of

__all__ = ["LOCAL", "Price", "PriceBook", "at_standard_rates", "cost_of", "load_lists", "price_in", "price_sources"]
