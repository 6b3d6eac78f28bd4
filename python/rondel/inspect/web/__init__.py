"""The inspector's web page: a process of its own that asks others and shows what they answer.

    browser ──HTTP──► the page's process ──private sockets──► the program, its workers
                      (Rondel's own server)                   (their inspector threads answer)

The page's process is started by ``rondel serve --inspect``, ``rondel run --inspect`` and ``rondel
web PID``, so a program whose loop is blocked is still shown, pays nothing until somebody looks, and
all workers are on one page. It ends with the process that it was started for.

``address`` is where it listens, ``side`` starts it, ``__main__`` is what runs in it; ``access``
(with ``peers``) says who may ask, ``app`` answers, ``processes`` knows whom to ask; ``groups`` and
``timeline`` turn what processes tell into what the page shows; ``single`` writes a recording as a
page of one file.
``static`` is the page: ES modules as they are, no build step.
"""
