"""Stages in order: plan, train, measure, resume, report; and ablations, which run many pipelines."""
