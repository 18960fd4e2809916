"""Where things run: profiles, sizes, Spark and Ray start-up, secrets, doctor."""
