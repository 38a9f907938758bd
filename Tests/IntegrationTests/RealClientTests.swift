import Foundation
import Glibc
import Testing

/// A port that was free a moment ago, for servers that cannot choose one themselves.
private func freePort() throws -> UInt16 { try deadPort() }

extension IntegrationTests {
    /// Programs that people use, and the examples they begin with.
    @Suite struct RealClients {
        private func httpServer(_ folder: Folder, _ name: String) throws -> (Subprocess, String) {
            let site = "\(folder.path)/\(name)"
            mkdir(site, 0o755)
            try "I am \(name)\n".write(toFile: "\(site)/index.html", atomically: false, encoding: .utf8)
            try Data(repeating: 0x61, count: 5_000_000).write(to: URL(filePath: "\(site)/large"))
            let server = try Subprocess([
                "python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", site,
            ])
            let line = try server.line(with: " port ")
            let port = try #require(line.firstMatch(of: /port (\d+)/)?.1)
            return (server, "127.0.0.1:\(port)")
        }

        private func curl(_ arguments: [String]) throws -> (status: Int32, text: String) {
            try Subprocess.run(["curl", "-sS", "--noproxy", "*", "--max-time", "20"] + arguments)
        }

        @Test("curl is routed by Host with the example of the classic's manual")
        func hostRouter() throws {
            let folder = Folder()
            let (one, oneAddress) = try httpServer(folder, "one")
            let (two, twoAddress) = try httpServer(folder, "two")
            try withTProxy(
                script: [Repository.example("host_router.py")],
                environment: ["ROUTES": "one.localhost=\(oneAddress),two.localhost=\(twoAddress)"]
            ) { (proxy) throws in
                let url = "http://127.0.0.1:\(proxy.port)/"
                #expect(try curl(["-H", "Host: one.localhost", url]).text == "I am one")
                #expect(try curl(["-H", "Host: two.localhost:80", url]).text == "I am two")
                #expect(
                    try curl(["-H", "Host: three.localhost", "-w", "%{http_code}", "-o", "/dev/null", url]).text
                        == "404")
                let large = try curl([
                    "-H", "Host: two.localhost", "-w", "%{size_download}", "-o", "/dev/null", url + "large",
                ])
                #expect(large.text == "5000000")
            }
            withExtendedLifetime((one, two)) {}
        }

        @Test("the other examples of the classic's manual work: a file, everything to one remote, SOCKS 4")
        func examples() throws {
            let folder = Folder()
            let (server, address) = try httpServer(folder, "one")
            try withTProxy(script: [Repository.example("sendfile.py")]) { proxy in
                let expected = try String(contentsOfFile: Repository.example("welcome.txt"), encoding: .utf8)
                for _ in 0..<3 {
                    let answer = try curl(["http://127.0.0.1:\(proxy.port)/"])
                    #expect(answer.text + "\n" == expected && answer.status == 0)
                }
            }
            try withTProxy(script: [Repository.example("transparent.py")], environment: ["REMOTE": address]) {
                (proxy) throws in
                #expect(try curl(["http://127.0.0.1:\(proxy.port)/"]).text == "I am one")
            }
            try withTProxy(script: [Repository.example("socks4.py")]) { (proxy) throws in
                let answer = try curl(["--socks4", "127.0.0.1:\(proxy.port)", "http://\(address)/"])
                #expect(answer.text == "I am one")
            }
            withExtendedLifetime(server) {}
        }

        @Test("a router of one line of jq works", .enabled(if: has("jq")))
        func jq() throws {
            let folder = Folder()
            let (server, address) = try httpServer(folder, "one")
            let filter = "select(.id) | {jsonrpc: \"2.0\", id} + {result: {remote: \"\(address)\"}}"
            try withTProxy(router: "jq -c --unbuffered '\(filter)'") { (proxy) throws in
                for _ in 0..<5 { #expect(try curl(["http://127.0.0.1:\(proxy.port)/"]).text == "I am one") }
            }
            withExtendedLifetime(server) {}
        }

        @Test("redis-cli and redis-benchmark work on a redis-server", .enabled(if: has("redis-server")))
        func redis() throws {
            let folder = Folder()
            let port = try freePort()
            let server = try Subprocess([
                "redis-server", "--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--dir", folder.path,
            ])
            try server.line(with: "Ready to accept connections")
            try withTProxy(script: [Repository.example("transparent.py")], environment: ["REMOTE": "127.0.0.1:\(port)"])
            { proxy in
                func cli(_ arguments: [String]) throws -> String {
                    try Subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", "\(proxy.port)"] + arguments).text
                }
                #expect(try cli(["set", "key", "value"]) == "OK")
                #expect(try cli(["get", "key"]) == "value")
                #expect(try cli(["--pipe-timeout", "5", "ping"]) == "PONG")
                let benchmark = try Subprocess.run([
                    "redis-benchmark", "-h", "127.0.0.1", "-p", "\(proxy.port)", "-q", "-n", "20000", "-c", "50",
                    "-t", "ping_inline,set,get,lpush,mset", "-d", "200",
                ])
                #expect(benchmark.status == 0)
                #expect(benchmark.text.contains(/MSET .*requests per second/), "\(benchmark.text)")
                #expect(!benchmark.text.contains("rror"), "\(benchmark.text)")
                // A new connection for each request, as PHP does it.
                let short = try Subprocess.run([
                    "redis-benchmark", "-h", "127.0.0.1", "-p", "\(proxy.port)", "-q", "-n", "2000", "-k", "0", "-t",
                    "ping_inline",
                ])
                #expect(short.status == 0 && !short.text.contains("rror"), "\(short.text)")
            }
            withExtendedLifetime(server) {}
        }
    }
}
