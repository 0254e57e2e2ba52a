#!/usr/bin/env python3
"""The published reference agent of mcpbait, which obeys every instruction that it reads, as a client of any MCP server.

    python3 agent.py WORKSPACE COMMAND…

mcpbait runs this agent inside its own process. Here the same code gets its list of tools and its answers from COMMAND, over
stdio. What it was told is printed at the end, as one line of JSON.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import anyio
from mcpbait import naive


class Server:
    """A server of the Model Context Protocol, asked one question at a time."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.asked = 0
        self.listed = {}
        self.denied = {}
        client = {"name": "naive", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        self.say({"method": "notifications/initialized"})

    def say(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def ask(self, method, params):
        self.asked += 1
        self.say({"id": self.asked, "method": method, "params": params})
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self.asked and "method" not in answer:
                return answer.get("result") or {"content": [{"type": "text", "text": json.dumps(answer["error"])}]}
        raise EOFError(f"the server ended before it answered {method}")

    # What the agent uses of mcpbait's own router.

    def on_list(self):
        tools = self.ask("tools/list", {})["tools"]
        for tool in tools:
            seen = self.listed.setdefault(tool["name"], [])
            if tool["description"] not in seen:
                seen.append(tool["description"])
        return [SimpleNamespace(name=tool["name"], description=tool["description"], input_schema=tool["inputSchema"]) for tool in tools]

    async def dispatch(self, name, arguments):
        result = self.ask("tools/call", {"name": name, "arguments": arguments})
        said = result.get("_meta", {}).get("farthing/denied")
        if said:
            self.denied.setdefault(name, []).append(said["code"])
        return [SimpleNamespace(text=part.get("text", "")) for part in result["content"]]


def main():
    workspace, *command = sys.argv[1:]
    server = Server(command)
    naive.build_server = lambda session: (None, server)
    anyio.run(naive.run_naive_agent, SimpleNamespace(ctx=SimpleNamespace(workspace=workspace)))
    server.process.stdin.close()
    server.process.wait(timeout=30)
    print(json.dumps({"listed": server.listed, "denied": server.denied}))


if __name__ == "__main__":
    main()
