import Testing

extension IntegrationTests {
    /// What the one line says that a user sees when tproxy does not start.
    @Suite struct StartFailure {
        private func start(_ arguments: [String]) throws -> String {
            let (status, text) = try Subprocess.run(
                [Repository.binary, "-b", "127.0.0.1:0", "--log-level", "error"] + arguments, within: patience)
            #expect(status == 3, "\(text)")
            let lines = text.split(separator: "\n")
            #expect(lines.count == 1, "\(text)")
            return lines.last.map(String.init) ?? ""
        }

        @Test(
            "a router that does not come up is named with the line of its stderr that says why",
            arguments: [
                (
                    // As Node does it: a trace, then its version.
                    "echo 'Error: no such module' >&2; echo '    at new NodeError' >&2; echo >&2; echo 'Node.js v20' >&2",
                    "exited with status 4: Error: no such module"
                ),
                ("echo 'first' >&2; echo 'there is no table' >&2", "exited with status 4: there is no table"),
                ("true", "exited with status 4"),
            ])
        func lastWords(script: String, reason: String) throws {
            #expect(try start(["--router", "sh -c \"\(script); exit 4\""]).hasSuffix(reason))
        }

        @Test("a script with a syntax error is refused with Python's sentence about it")
        func syntaxError() throws {
            let folder = Folder()
            let script = try folder.file("broken.py", "def proxy(data): return (\n")
            #expect(try start([script]).contains(" exited with status 1: SyntaxError: "))
        }

        @Test("a router that ends at once without a word is told what routers do")
        func endsAtOnce() throws {
            let folder = Folder()
            let script = try folder.file("route.py", "def proxy(data): return None\n")
            #expect(try start(["--router", "python3 \(script)"]).contains("a Python script that only defines proxy"))
        }

        @Test("an access log that cannot be opened is named")
        func accessLog() throws {
            let line = try start(["--router", "cat", "--access-log", "/nowhere/access.log"])
            #expect(
                line.hasSuffix(
                    "cannot start: the access log /nowhere/access.log cannot be opened: No such file or directory"))
        }
    }
}
