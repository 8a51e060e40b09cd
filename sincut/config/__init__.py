"""What can be set. No torch here: ``sincut --help`` must answer at once."""
