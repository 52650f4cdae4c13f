"""Fits what the offline judge has learnt, and the answers it is fitted on. Nothing that reads answers imports it."""
