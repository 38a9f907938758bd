import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What a router tells all workers.
    @Suite struct Orders {
        /// Each worker's answers name its router, and how often that was asked about these bytes.
        private static let router = """
            import json, os, sys
            asked = {}
            def write(**message):
                print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
            for line in sys.stdin:
                message = json.loads(line)
                if message.get("method") == "hello":
                    write(id=message["id"], result={"protocol": 1, "methods": ["proxy"]})
                elif message.get("method") == "proxy":
                    question = message["params"]
                    data = question["data"]
                    word, _, rest = data.strip().partition(" ")
                    asked[data] = asked.get(data, 0) + 1
                    if word == "stay":
                        result = {"remote": rest, "reply": question["connection"] + ";"}
                    else:
                        result = {"close": "%d %d" % (os.getpid(), asked[data]), "cache": {"key": "data", "ttl": 60}}
                    if word == "burst":
                        for number in range(int(rest)):
                            print(json.dumps({"jsonrpc": "2.0", "method": "invalidate",
                                              "params": {"key": "data", "value": "other %d" % number}}))
                        write(method="invalidate", params={"key": "data", "value": "same" + chr(10)})
                    if word == "close":
                        write(method="close", params=json.loads(rest))
                    write(id=message["id"], result=result)
            """

        private func ask(_ proxy: TProxy, _ text: String) throws -> (router: String, count: Int) {
            let client = try proxy.client(text)
            client.end()
            let words = try client.text().split(separator: " ")
            return (String(try #require(words.first)), Int(words.last ?? "") ?? 0)
        }

        /// Asks until both workers have given an answer that fits.
        private func untilBoth(_ proxy: TProxy, _ text: String, _ fits: (Int) -> Bool) throws {
            var routers: Set<String> = []
            try Deadline(in: patience).until("an answer of each worker") {
                let (router, count) = try ask(proxy, text)
                if fits(count) { routers.insert(router) }
                return routers.count == 2
            }
        }

        @Test("invalidate reaches all workers, however many come at once", arguments: [0, 3000])
        func invalidate(before: Int) throws {
            let folder = Folder()
            let script = try folder.file("router.py", Self.router)
            try withTProxy(["-w", "2"], router: "python3 -S \(script)") { proxy in
                try untilBoth(proxy, "same") { $0 == 1 }
                _ = try ask(proxy, "burst \(before)")
                try untilBoth(proxy, "same") { $0 == 2 }
            }
        }

        /// A connection that stays, and its id.
        private func stay(_ proxy: TProxy, _ origin: Origin) throws -> (id: String, client: Peer, server: Peer) {
            let client = try proxy.client("stay \(origin.address)")
            let server = try origin.accept()
            var id = ""
            while !id.hasSuffix(";") { id += String(decoding: try client.receive(1), as: UTF8.self) }
            id.removeLast()
            return (id, client, server)
        }

        @Test("during an upgrade both reach the workers of both, and of one that was told to go and is not done")
        func upgrade() throws {
            let folder = Folder()
            let script = try folder.file("router.py", Self.router)
            let origin = try Origin()
            let installed = try Upgrades.Installed(router: "python3 -S \(script)")
            let proxy = installed.proxy
            let old = proxy.process.pid
            let first = try stay(proxy, origin)
            let new = try installed.upgrade()
            try untilBoth(proxy, "same") { $0 == 1 }
            _ = try ask(proxy, "burst 0")
            try untilBoth(proxy, "same") { $0 == 2 }

            // Three generations: the first passes it on to nobody, the second to the first.
            kill(old, SIGQUIT)
            try proxy.process.line(with: "this process serves alone")
            let second = try stay(proxy, origin)
            let newer = try installed.upgrade(of: new, count: 2)
            installed.note()
            kill(new, SIGQUIT)
            try proxy.process.line(with: "this process serves alone", count: 2)
            #expect(Proc.isAlive(old) && Proc.isAlive(new))
            for one in [first, second] {
                _ = try ask(proxy, #"close {"connection": "\#(one.id)"}"#)
                #expect(try one.client.ending() == .end)
            }
            // With its last connection each of them ends.
            try Deadline(in: patience).until("the old ones' end") { !Proc.isAlive(old) && !Proc.isAlive(new) }

            // Backed out: the newest is told by the one before.
            let newest = try installed.upgrade(of: newer, count: 3)
            installed.note()
            var last = try stay(proxy, origin)
            var kept = [last]
            let own = try #require(last.id.split(separator: ".").first)
            try Deadline(in: patience).until("a connection of each") {
                last = try stay(proxy, origin)
                kept.append(last)
                return !last.id.hasPrefix("\(own).")
            }
            kill(newest, SIGQUIT)
            try proxy.process.line(with: "taken back")
            _ = try ask(proxy, #"close {"remote": "\#(origin.address)", "reset": true}"#)
            for one in kept { #expect(try one.client.drain().ending == .reset) }
            try Deadline(in: patience).until("the newest one's end") { !Proc.isAlive(newest) }
            try installed.end()
        }

        @Test("close reaches all workers: by remote, and by a connection's id, which is one worker's")
        func close() throws {
            let folder = Folder()
            let script = try folder.file("router.py", Self.router)
            let origin = try Origin()
            try withTProxy(["-w", "2"], router: "python3 -S \(script)") { proxy in
                var clients: [String: Peer] = [:]
                var kept: [Peer] = []
                var workers: Set<Substring> = []
                try Deadline(in: patience).until("a connection of each worker") {
                    let (id, client, server) = try stay(proxy, origin)
                    kept.append(server)
                    clients[id] = client
                    workers.insert(id.prefix { $0 != "." })
                    return workers.count == 2
                }
                for worker in workers {
                    let id = try #require(clients.keys.first { $0.hasPrefix("\(worker).") })
                    _ = try ask(proxy, #"close {"connection": "\#(id)"}"#)
                    #expect(try clients[id]?.ending() == .end)
                    clients[id] = nil
                }
                let last = try proxy.client("stay \(origin.address)")
                kept.append(try origin.accept())
                clients["last"] = last
                _ = try ask(proxy, #"close {"remote": "\#(origin.address)", "reset": true}"#)
                for client in clients.values { #expect(try client.drain().ending == .reset) }
                #expect(try proxy.accesses(1).isEmpty == false)
            }
        }
    }
}
