import Control
import Foundation
import Glibc
import Testing

/// The Python that has what the HTTP examples need: TPROXY_PYTHON, that of PATH, or the system's, whose packages are apt's.
private let withH11 = [ProcessInfo.processInfo.environment["TPROXY_PYTHON"], "python3", "/usr/bin/python3"].lazy
    .compactMap(\.self).first { (try? Subprocess.run([$0, "-c", "import h11"]))?.status == 0 }
private let python = withH11 ?? "python3"
private let hasH11 = withH11 != nil
private let nginx = ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"].first { has($0) }

extension IntegrationTests {
    /// The rewriting examples with the programs that people use.
    @Suite(.enabled(if: has("curl"))) struct RewriteExamples {
        private let folder = Folder()

        private func withExample(
            _ name: String, environment: [String: String] = [:], _ body: (TProxy) throws -> Void
        ) throws {
            try withTProxy(
                script: [Repository.example(name)], environment: environment.merging(["TPROXY_PYTHON": python]) { $1 },
                body)
        }

        /// The ways in which curl sends a file. By itself it waits for a 100 for a second only, and then goes on without.
        private let uploads = [
            [], ["-H", "Expect: 100-continue", "--expect100-timeout", "60"], ["-H", "Transfer-Encoding: chunked"],
        ]

        private func curl(_ arguments: [String]) throws -> String {
            let done = try Subprocess.run(["curl", "-sS", "--max-time", "30"] + arguments)
            if done.status != 0 { throw Failure("curl: \(done.status) \(done.text)") }
            return done.text
        }

        /// Says of every request what it was, body's hash included, in chunks.
        private func reporter() throws -> (Subprocess, String) {
            let server = try Subprocess(["python3", "-S", Repository.helper("http_reporter.py")])
            let port = try #require(try server.line(with: "port").split(separator: " ").last)
            return (server, "127.0.0.1:\(port)")
        }

        private func upload() throws -> (path: String, hash: String) {
            let path = try folder.file("upload")
            try Data(scrambled(5_000_000)).write(to: URL(filePath: path))
            let hash = try Subprocess.run(["sha256sum", path]).text.prefix { $0 != " " }
            return (path, String(hash))
        }

        /// nginx with two hosts on one port: each says who it is, and has a large file.
        private func hosts() throws -> (Subprocess, String, Data) {
            let port = try deadPort()
            let large = Data(scrambled(7_000_000, seed: 9))
            try large.write(to: URL(filePath: "\(folder.path)/large"))
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map { "\($0)_temp_path \(folder.path)/\($0);" }.joined(separator: " ")
            let configuration = try folder.file(
                "nginx.conf",
                """
                daemon off; master_process off; pid \(folder.path)/pid; error_log stderr notice;
                events {}
                http {
                    access_log off; client_max_body_size 20m; client_body_buffer_size 10m; \(temporary)
                    server { listen 127.0.0.1:\(port); server_name a.example;
                        location / { return 200 "a $request_method $uri\\n"; } }
                    server { listen 127.0.0.1:\(port); server_name b.example;
                        location / { return 200 "b $request_method $uri\\n"; }
                        location /large { root \(folder.path); } }
                }
                """)
            let server = try Subprocess([try #require(nginx), "-e", "stderr", "-p", folder.path, "-c", configuration])
            try Deadline(in: patience).until("nginx") { (try? Peer(port: port)) != nil }
            return (server, "127.0.0.1:\(port)", large)
        }

        /// Whole uploads of every kind behind two downloads, and all connections to their end.
        private func expectUploads(_ proxy: TProxy, _ url: String) throws {
            let (path, hash) = try upload()
            for more in uploads {
                let text = try curl(more + ["-T", path, url + "/up"])
                #expect(text == "PUT /up 127.0.0.1:\(proxy.port) 5000000 \(hash)", "\(text)")
            }
            #expect(try proxy.accesses(4).allSatisfy { $0["reason"] == "done" })
        }

        @Test("transparentrw.py: downloads, uploads with Expect and in chunks, and many requests on one connection")
        func transparent() throws {
            let (server, address) = try reporter()
            try withExample("transparentrw.py", environment: ["REMOTE": address]) { proxy in
                let url = "http://127.0.0.1:\(proxy.port)"
                #expect(try curl([url + "/1", url + "/2"]).contains("GET /1"))
                try expectUploads(proxy, url)
            }
            withExtendedLifetime(server) {}
        }

        @Test(
            "via.mjs: the first answer of a connection has a line more in its head, and all else is as it was",
            .enabled(if: hasNode, "Node.js 20 is missing"))
        func via() throws {
            let (server, address) = try reporter()
            let example = Repository.root + "routers/node/examples/via.mjs"
            try withTProxy(router: "node '\(example)'", environment: ["REMOTE": address]) { proxy in
                let url = "http://127.0.0.1:\(proxy.port)"
                let answers = try curl(["-i", url + "/1", url + "/2"])
                #expect(answers.hasPrefix("HTTP/1.1 200 OK\r\nVia: 1.1 tproxy\r\n"), "\(answers)")
                #expect(answers.matches(of: /Via: 1.1 tproxy/).count == 1 && answers.contains("GET /2"), "\(answers)")
                try expectUploads(proxy, url)
            }
            withExtendedLifetime(server) {}
        }

        @Test(
            "a Node router changes what is asked and what is answered, in every request of a connection",
            .enabled(if: hasNode, "Node.js 20 is missing"))
        func changedInNode() throws {
            let (server, address) = try reporter()
            let (path, hash) = try upload()
            let script = try folder.file(
                "changing.mjs",
                """
                import { Transform } from 'node:stream';
                import { pipeline } from 'node:stream/promises';
                import { run } from '\(Repository.root)routers/node/src/index.mjs';

                const through = (change) => (stream) => {
                  const transform = (data, _, done) => done(null, Buffer.from(change(data.toString('latin1')), 'latin1'));
                  return pipeline(stream, new Transform({ transform }), stream);
                };
                run({
                  proxy: () => ({ remote: '\(address)' }),
                  rewriteRequest: through((text) => text.replace('Host: 127.0.0.1', 'Host: node.example')),
                  rewriteResponse: through((text) => text.toUpperCase()),
                });
                """)
            try withTProxy(router: "node '\(script)'") { proxy in
                let url = "http://127.0.0.1:\(proxy.port)"
                let host = "NODE.EXAMPLE:\(proxy.port)"
                for more in uploads {
                    let text = try curl(
                        more + ["-w", "%{num_connects}", "-T", path, url + "/up", "--next", "-sS", url + "/after"])
                    let lines = text.split(separator: "\n")
                    #expect(lines.first == "PUT /UP \(host) 5000000 \(hash.uppercased())", "\(text)")
                    #expect(lines.last?.hasPrefix("1GET /AFTER \(host) 0 ") == true, "\(text)")
                }
                #expect(try proxy.accesses(3).allSatisfy { $0["reason"] == "done" })
                #expect(try proxy.sum(.streams) == 6)
            }
            withExtendedLifetime(server) {}
        }

        @Test(
            "httprewrite.py: nginx sees the other Host in every request of a connection, pipelined and with bodies",
            .enabled(if: hasH11 && nginx != nil, "h11 or nginx is missing"))
        func otherHost() throws {
            let (server, address, large) = try hosts()
            let (path, _) = try upload()
            try withExample("httprewrite.py", environment: ["REMOTE": address, "HOST": "b.example"]) { proxy in
                let url = "http://127.0.0.1:\(proxy.port)"
                #expect(try curl(["-H", "Host: a.example", url + "/1", url + "/2"]) == "b GET /1\nb GET /2")
                let file = "\(folder.path)/got"
                _ = try curl(["-H", "Host: a.example", "-o", file, url + "/large"])
                #expect(try Data(contentsOf: URL(filePath: file)) == large)
                // curl goes on with the connection after an upload, whatever the form of its body.
                for more in uploads {
                    let text = try curl(
                        more + ["-w", "%{num_connects}", "-T", path, url + "/up", "--next", "-sS", url + "/after"])
                    #expect(text == "b PUT /up\n1b GET /after", "\(text)")
                }
                let client = try proxy.client()
                let heads = (0..<200).map { "GET /\($0) HTTP/1.1\r\nHost: a.example\r\n" }
                try client.send(heads.joined(separator: "\r\n") + "Connection: close\r\n\r\n")
                let answers = try client.text()
                for number in 0..<200 { #expect(answers.contains("b GET /\(number)\n")) }
                // What is no HTTP gets no further.
                let nonsense = try proxy.client()
                try nonsense.send("GET / HTTP/1.1\r\nno header\r\n\r\n")
                #expect(try nonsense.ending() == .reset)
            }
            withExtendedLifetime(server) {}
        }

        @Test(
            "httpproxy.py: curl goes anywhere by -x, plain and by CONNECT, with uploads of every form",
            .enabled(if: hasH11, "h11 is missing"))
        func anywhere() throws {
            let (one, first) = try reporter()
            let (two, second) = try reporter()
            let (path, hash) = try upload()
            let dead = try deadPort()
            try withExample("httpproxy.py") { proxy in
                func via(_ arguments: [String]) throws -> String {
                    try curl(["--noproxy", "", "-x", "http://127.0.0.1:\(proxy.port)"] + arguments)
                }
                // One connection as long as it is one remote.
                let text = try via([
                    "http://\(first)/1?a=b", "http://\(first)/2", "http://\(second)/3", "-w", "%{num_connects}\n",
                ])
                let lines = text.split(separator: "\n").map {
                    $0.split(separator: " ").prefix(3).joined(separator: " ")
                }
                #expect(
                    lines == ["GET /1?a=b \(first)", "1", "GET /2 \(first)", "0", "GET /3 \(second)", "1"], "\(text)")
                for tunnel in [[], ["-p"]] {
                    for more in uploads {
                        let text = try via(tunnel + more + ["-T", path, "http://\(first)/up"])
                        #expect(text == "PUT /up \(first) 5000000 \(hash)", "\(text)")
                    }
                }
                #expect(try via(["-w", "%{http_code}", "http://127.0.0.1:\(dead)/"]).hasSuffix("502"))
                #expect(try curl(["--noproxy", "*", "http://127.0.0.1:\(proxy.port)/"]).contains("an HTTP proxy"))
                // One for each connection in plain; a tunnel passes the router by.
                #expect(try proxy.sum(.streams) == 5)
            }
            withExtendedLifetime((one, two)) {}
        }
    }
}
