"""Checks of the exercises: `check.ch2_ex1(my_function)` says what is wrong, not the answer."""
