"""Checks of the exercises: `check.ch2_ex1(my_function)` says what is wrong, not the answer."""

from assocmem.book.check.ch1 import ch1_ex1, ch1_ex2, ch1_ex3, ch1_ex4, ch1_ex5, ch1_ex6, ch1_ex7
from assocmem.book.check.ch2 import ch2_ex1, ch2_ex2, ch2_ex3, ch2_ex4, ch2_ex5, ch2_ex6
from assocmem.book.check.ch3 import ch3_ex1, ch3_ex2, ch3_ex3, ch3_ex4, ch3_ex5, ch3_ex6
from assocmem.book.check.ch4 import ch4_ex1, ch4_ex2, ch4_ex3, ch4_ex4, ch4_ex5, ch4_ex6
from assocmem.book.check.ch5 import ch5_ex1, ch5_ex2, ch5_ex3, ch5_ex4, ch5_ex5, ch5_ex6
from assocmem.book.check.ch6 import ch6_ex1, ch6_ex2, ch6_ex3, ch6_ex4, ch6_ex5, ch6_ex6
from assocmem.book.check.ch7 import ch7_ex1, ch7_ex2, ch7_ex3, ch7_ex4, ch7_ex5, ch7_ex6
from assocmem.book.check.ch8 import ch8_ex1, ch8_ex2, ch8_ex3, ch8_ex4, ch8_ex5, ch8_ex6
from assocmem.book.check.ch9 import ch9_ex1, ch9_ex2, ch9_ex3, ch9_ex4, ch9_ex5, ch9_ex6

__all__ = [
    "ch1_ex1",
    "ch1_ex2",
    "ch1_ex3",
    "ch1_ex4",
    "ch1_ex5",
    "ch1_ex6",
    "ch1_ex7",
    "ch2_ex1",
    "ch2_ex2",
    "ch2_ex3",
    "ch2_ex4",
    "ch2_ex5",
    "ch2_ex6",
    "ch3_ex1",
    "ch3_ex2",
    "ch3_ex3",
    "ch3_ex4",
    "ch3_ex5",
    "ch3_ex6",
    "ch4_ex1",
    "ch4_ex2",
    "ch4_ex3",
    "ch4_ex4",
    "ch4_ex5",
    "ch4_ex6",
    "ch5_ex1",
    "ch5_ex2",
    "ch5_ex3",
    "ch5_ex4",
    "ch5_ex5",
    "ch5_ex6",
    "ch6_ex1",
    "ch6_ex2",
    "ch6_ex3",
    "ch6_ex4",
    "ch6_ex5",
    "ch6_ex6",
    "ch7_ex1",
    "ch7_ex2",
    "ch7_ex3",
    "ch7_ex4",
    "ch7_ex5",
    "ch7_ex6",
    "ch8_ex1",
    "ch8_ex2",
    "ch8_ex3",
    "ch8_ex4",
    "ch8_ex5",
    "ch8_ex6",
    "ch9_ex1",
    "ch9_ex2",
    "ch9_ex3",
    "ch9_ex4",
    "ch9_ex5",
    "ch9_ex6",
]
