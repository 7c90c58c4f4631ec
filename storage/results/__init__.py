"""What runs leave in Parquet: metrics, windows, other rows; and what is asked of them."""
