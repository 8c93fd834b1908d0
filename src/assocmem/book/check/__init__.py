"""Checks of the exercises: `check.ch2_ex1(my_function)` says what is wrong, not the answer."""

from assocmem.book.check.ch1 import ch1_ex1, ch1_ex2, ch1_ex3, ch1_ex4, ch1_ex5, ch1_ex6
from assocmem.book.check.ch2 import ch2_ex1, ch2_ex2, ch2_ex3, ch2_ex4, ch2_ex5, ch2_ex6

__all__ = [
    "ch1_ex1",
    "ch1_ex2",
    "ch1_ex3",
    "ch1_ex4",
    "ch1_ex5",
    "ch1_ex6",
    "ch2_ex1",
    "ch2_ex2",
    "ch2_ex3",
    "ch2_ex4",
    "ch2_ex5",
    "ch2_ex6",
]
