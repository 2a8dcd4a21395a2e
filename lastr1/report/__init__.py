"""What people look at: the demo, the doctor, pages and plots."""
