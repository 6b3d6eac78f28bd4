"""What users use: curl, httpx, `websockets`, h2load, Chromium.

curl, h2load and Chromium are Debian's (`scripts/clients.sh install`); where one is missing its
tests skip.
"""
