import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// When a router is asked besides when bytes have come, if it wants to be.
    @Suite struct Events {
        private func withRouter(acting event: String, _ options: [String] = [], _ body: (TProxy) throws -> Void) throws
        {
            try withTProxy(
                options, router: Repository.python("eventful.py"), environment: ["ACT_ON": event], body)
        }

        @Test("at connect, before a byte: for protocols whose servers speak first")
        func connect() throws {
            try withRouter(acting: "connect") { (proxy) throws in
                let client = try proxy.client()
                #expect(try client.text() == "connect ''\n")
            }
        }

        @Test("in silence, with what has come by then")
        func silence() throws {
            try withRouter(acting: "silence", ["--silence", "150"]) { (proxy) throws in
                let client = try proxy.client()
                let time = try seconds { () throws in #expect(try client.text() == "silence ''\n") }
                #expect(time > 0.1 && time < 3, "\(time)")
                let second = try proxy.client()
                try second.send("abc")
                #expect(try second.text() == "silence 'abc'\n")
            }
        }

        @Test("at the client's end, while nothing is decided")
        func end() throws {
            try withRouter(acting: "eof") { (proxy) throws in
                let client = try proxy.client()
                try client.send("abc")
                client.end()
                #expect(try client.text() == "eof 'abc'\n")
            }
        }

        @Test("when time is up: the last chance to decide")
        func timeout() throws {
            try withRouter(acting: "timeout", ["--verdict-timeout", "0.5"]) { (proxy) throws in
                let client = try proxy.client()
                try client.send("abc")
                #expect(try client.text() == "timeout 'abc'\n")
                #expect(try proxy.access(client)["reason"] == "closed")
            }
        }
    }
}
