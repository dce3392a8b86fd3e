"""Cost of optimizer steps, measured side by side, and the page that shows it.

command     the command line: which models, which methods, where the page goes
run         model after model; keeps what is measured after each
worker      a process for each method: builds it, warms it up, takes turns
rounds      the turns: methods after one another, each beside a turn of SGD
quiet       how busy other programs keep the machine
memory      what a step allocates
models, networks, methods, steppers     what is measured
results     rows, and the CSV file that holds them
targets, scaling, pictures, page        what is made of the rows
"""
