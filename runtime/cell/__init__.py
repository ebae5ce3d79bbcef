"""One actor instance inside a worker: its inputs, its handlers' runs, its outputs, and redelivery after a crash."""
