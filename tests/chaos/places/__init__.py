"""What is loaded into ranks: a folder for PYTHONPATH, whose ``sitecustomize`` Python imports."""
