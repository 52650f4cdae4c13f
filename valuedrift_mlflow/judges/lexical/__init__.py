"""The offline judge: it reads a stance from the words of an answer."""
