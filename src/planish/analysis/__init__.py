"""What a graph costs, where its time goes, and how much precision each of its layers needs."""
