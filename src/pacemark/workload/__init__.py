"""What is asked: where requests come from."""
