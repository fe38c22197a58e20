"""A drill: a sample of a job is killed, stopped, hindered and gone on with; what was promised has to hold."""
