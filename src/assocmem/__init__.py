"""Transformers as associative memory: sequence operators, layers and the theory behind them."""
