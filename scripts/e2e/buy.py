"""Asks for what it is given, as any program does: it knows nothing of payments, of proxies, or of certificates.

    python3 buy.py LIBRARY URL…

prints one line of JSON for each answer.
"""

import json
import sys


def with_urllib(url):
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        answer = urlopen(url, timeout=60)
    except HTTPError as refused:
        answer = refused
    return answer.status, dict(answer.headers), answer.read().decode()


def with_requests(url):
    import requests

    answer = requests.get(url, timeout=60)
    return answer.status_code, dict(answer.headers), answer.text


def with_httpx(url):
    import httpx

    answer = httpx.get(url, timeout=60)
    return answer.status_code, dict(answer.headers), answer.text


library, *urls = sys.argv[1:]
get = {"urllib": with_urllib, "requests": with_requests, "httpx": with_httpx}[library]
for url in urls:
    status, headers, text = get(url)
    headers = {name.lower(): value for name, value in headers.items()}
    print(json.dumps({"status": status, "headers": headers, "text": text}), flush=True)
