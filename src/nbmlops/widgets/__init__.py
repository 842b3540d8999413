"""What is shown in a cell: live where a browser is, as text, HTML and a picture everywhere."""
