"""The local web app: a view of runs, events and pages, and a hand that starts commands. No torch.

One process serves pages on 127.0.0.1. Trainings and translations are commands of their own, which
outlive page, browser and server; what the pages show is read from the files that these write.
"""
