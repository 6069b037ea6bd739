"""What synthetic streets are painted with: ground, buildings, furniture, vehicles, figures, and where each stands."""
