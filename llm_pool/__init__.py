"""Decides where and how a model is called; knows nothing of jobs, Celery or tenants' tables."""
