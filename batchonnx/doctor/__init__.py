"""What is wrong with an environment before a job is: packages, machine, devices, places, clusters."""
