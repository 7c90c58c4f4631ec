"""What runs leave in Parquet (metrics, windows, other rows), and the queries over it."""
