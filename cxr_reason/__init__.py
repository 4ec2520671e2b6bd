"""Reports of chest X-rays into verified reasoning chains, and the models and scores that follow from them."""

__version__ = "0.1.0"
