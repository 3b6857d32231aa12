"""What `sdd init` writes, with my_name and MY_PATH in place of names."""
