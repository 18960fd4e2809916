"""Raw tables to a published dataset, on Spark."""
