import Addressing
import Config
import Foundation
import Testing

@testable import tproxy

private func document(_ name: String) throws -> String {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    return try String(contentsOf: root.appending(path: name), encoding: .utf8)
}

/// A file that is gone with this.
private final class File {
    let path: String

    init(_ text: String, ending: String = "toml") throws {
        path = "/tmp/tproxy-options-\(UUID().uuidString).\(ending)"
        try Data(text.utf8).write(to: URL(filePath: path))
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Reads a command line.
private func parse(_ arguments: [String], _ environment: [String: String] = [:]) -> CommandLineOptions.Outcome {
    CommandLineOptions.parse(arguments: arguments, environment: environment)
}

private func settings(_ arguments: [String], _ environment: [String: String] = [:]) throws -> Settings {
    guard case .serve(let settings) = parse(["--router", "true"] + arguments, environment) else {
        Issue.record("\(parse(["--router", "true"] + arguments, environment))")
        throw CancellationError()
    }
    return settings
}

private func refusal(_ arguments: [String], _ environment: [String: String] = [:]) -> String? {
    guard case .refuse(let text) = parse(["--router", "true"] + arguments, environment) else { return nil }
    #expect(!text.contains("\n"))
    return text
}

@Suite("The command line") struct CommandLineTests {
    /// A value other than the default that is allowed.
    private static func value(_ option: OptionName) -> String {
        switch option {
        case .config, .logConfig: "/dev/null"
        case .router, .shadowRouter, .canaryRouter: "cat"
        case .canary: "0.5%"
        case .bind: "unix:/run/x"
        case .fallback: "127.0.0.1:1"
        case .fileRoot: "/srv"
        case .name, .pid, .user, .group, .logFile, .accessLog, .sslCertfile, .sslKeyfile, .sslCACerts: "x"
        case .sslCertReqs: "2"
        case .sslCiphers: "ECDHE+AESGCM"
        case .sslMinVersion: "1.3"
        case .sslALPN: "h2,http/1.1"
        case .daemon, .reload: "true"
        case .umask: "022"
        case .logLevel: "debug"
        case .logFormat: "json"
        case .backlog, .workers, .routers, .workerConnections, .timeout, .maxInitialBytes, .verdictTimeout,
            .routerTimeout,
            .connectTimeout, .gracefulTimeout, .silence:
            "7"
        }
    }

    /// What has to be said for an option to mean something.
    private static func companions(_ option: OptionName) -> [String] {
        switch option {
        case .sslKeyfile, .sslCiphers, .sslMinVersion, .sslALPN: ["--ssl-certfile", "c"]
        case .sslCACerts: ["--ssl-certfile", "c", "--ssl-cert-reqs", "0"]
        case .sslCertReqs: ["--ssl-certfile", "c", "--ssl-ca-certs", "a"]
        default: []
        }
    }

    @Test("the help, the README and the defaults say the same of each option", arguments: OptionName.allCases)
    func help(option: OptionName) throws {
        guard case .answer(let raw) = parse(["--help"]) else { throw CancellationError() }
        // The help is as wide as the terminal: its words count.
        let help = raw.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        let names = option.letter.map { "-\($0), --\(option.rawValue)" } ?? "--\(option.rawValue)"
        let value = option.isFlag ? "" : " <\(option.placeholder)>"
        let standard = option.standard.map { " (default: \($0))" } ?? ""
        #expect(help.contains(" \(names)\(value) \(option.about)\(standard) -"), "\(help)")

        let readme = try document("README.md").split(separator: "\n").filter { $0.hasPrefix("|") }
        let rows = readme.filter { $0.contains("`--\(option.rawValue)") && $0.contains(option.about) }
        #expect(rows.count == 1, "\(option)")
        if let standard = option.standard, option != .name {
            #expect(try settings(["--\(option.rawValue)", standard]) == settingsOfDefault(option))
        }
    }

    /// As if nothing had been said, but for that it was.
    private func settingsOfDefault(_ option: OptionName) throws -> Settings {
        var settings = try settings([])
        settings.hasExplicitBinds = option == .bind
        return settings
    }

    @Test("the help shows every option once, and no other")
    func helpIsComplete() throws {
        guard case .answer(let help) = parse(["-h"]) else { throw CancellationError() }
        let shown = help.matches(of: /(?m)^  (?:-\w, )?--([a-z-]+)/).map { String($0.1) }
        #expect(shown == OptionName.allCases.map(\.rawValue) + ["version", "help"])
    }

    @Test(
        "an option says the same by its long name, its letter, the environment and the file",
        arguments: OptionName.allCases)
    func spellings(option: OptionName) throws {
        guard option != .config, option != .router else { return }
        let value = Self.value(option)
        let quoted = option.isFlag || Int(value) != nil && option != .umask ? value : "\"\(value)\""
        // A list of the environment has its values with commas between.
        #expect(!option.isList || !value.contains(","))
        let before = ["--router", "true"] + Self.companions(option)
        let file = try File("\(option.rawValue) = \(quoted)\n")
        var outcomes = [
            parse(before + (option.isFlag ? ["--\(option.rawValue)"] : ["--\(option.rawValue)", value])),
            parse(before, [option.environment: value]),
            parse(before + ["-c", file.path]),
            parse(before, ["TPROXY_CONFIG": file.path]),
        ]
        if !option.isFlag { outcomes.append(parse(before + ["--\(option.rawValue)=\(value)"])) }
        if let letter = option.letter {
            outcomes.append(parse(before + ["-\(letter)"] + (option.isFlag ? [] : [value])))
        }
        var plain: Settings?
        if case .serve(let settings) = parse(before) { plain = settings }
        for outcome in outcomes {
            guard case .serve(let settings) = outcome, case .serve(let first) = outcomes[0] else {
                Issue.record("\(option): \(outcome)")
                continue
            }
            #expect(settings == first && (settings != plain || option == .logConfig))
        }
    }

    @Test("the command line goes before the environment, that before the file, and a -b replaces")
    func precedence() throws {
        let file = try File(
            """
            bind = [5000, "unix:/run/t?mode=0660"]
            workers = 2
            backlog = 3
            timeout = 2.5
            name = 'from the file'
            """)
        var read = try settings(["-c", file.path])
        #expect(read.binds.map(\.description) == ["127.0.0.1:5000", "unix:/run/t?mode=0660"])
        #expect(read.workers == 2 && read.backlog == 3 && read.workerTimeoutMilliseconds == 2500)
        #expect(read.name == "from the file" && read.hasExplicitBinds)
        read = try settings(
            ["-c", file.path, "-w4"], ["TPROXY_BIND": "1,2", "TPROXY_WORKERS": "5", "TPROXY_BACKLOG": ""])
        #expect(read.binds.map(\.description) == ["127.0.0.1:1", "127.0.0.1:2"])
        #expect(read.workers == 4 && read.backlog == 3)
        #expect(try settings(["-c", file.path, "-b", "9"], ["TPROXY_BIND": "1"]).binds.count == 1)
        #expect(try settings([], ["TPROXY_NOBODY_KNOWS": "!"]) == settings([]))
    }

    @Test("the router may stand in the file, and the README's example is one")
    func wholeFile() throws {
        let example = try #require(try document("README.md").firstMatch(of: /(?s)```toml\n(.*?)```/))
        let file = try File(String(example.1))
        guard case .serve(let settings) = parse(["-c", file.path]) else {
            Issue.record("\(parse(["-c", file.path]))")
            return
        }
        #expect(!settings.router.arguments.isEmpty && settings.workers > 1)
    }

    @Test(
        "what is wrong in the file is refused in one line that names it and the key",
        arguments: [
            ("workers = 0", ": workers '0': expected a whole number, 1 to 512"),
            ("workers = true", ": workers 'true': expected a whole number, 1 to 512"),
            (
                "worker_connections = 5",
                ": worker_connections is no option (its keys are the long names); did you mean worker-connections?"
            ),
            ("log.level = 5", ": log is no option (its keys are the long names)"),
            ("\"a\\nb\" = 5", ": a\\nb is no option (its keys are the long names)"),
            ("config = 'x'", ": config cannot name another file"),
            ("ssl-keyfile = 'x'", ": ssl-keyfile needs --ssl-certfile"),
            ("ssl-certfile = ['a', '']", ": ssl-certfile '': expected a path"),
            ("ssl-certfile = 'a'\nssl-alpn = ['h2', 'http/1.1']", ": ssl-alpn takes one value"),
            ("name = ['a', 'b']", ": name takes one value"),
            ("bind = []", ": bind has no value"),
            ("bind = [[1]]", ": bind has to be a text, a number, true or false"),
            ("umask = 18", ": umask '18': expected an octal mask with a leading zero, 0 to 0777"),
            ("daemon = 'maybe'", ": daemon 'maybe': expected true or false"),
        ])
    func wrongFile(text: String, message: String) throws {
        let file = try File(text)
        #expect(refusal(["--config", file.path]) == "tproxy: \(file.path)\(message)")
    }

    @Test("a file that cannot be read is refused by the option that names it")
    func unreadable() throws {
        #expect(
            refusal(["-c", "/nowhere/x.toml"])?.hasPrefix("tproxy: -c/--config '/nowhere/x.toml': it cannot be opened")
                == true)
        #expect(refusal(["-c", "/tmp"])?.hasPrefix("tproxy: -c/--config '/tmp': it cannot be read") == true)
        #expect(refusal(["-c", "/dev/zero"])?.hasSuffix("it has more than 1048576 bytes") == true)
        #expect(refusal(["-c", "x.yml"]) == "tproxy: -c/--config 'x.yml': expected a TOML file")
        #expect(refusal([], ["TPROXY_CONFIG": "/nowhere"])?.hasPrefix("tproxy: TPROXY_CONFIG '/nowhere': ") == true)
        let broken = try File("workers = 1\nname = = 3\n")
        #expect(refusal(["-c", broken.path])?.contains("': line 2: ") == true)
        let table = try File("\n[bind]\n")
        #expect(refusal(["-c", table.path]) == "tproxy: -c/--config '\(table.path)': line 2: no option has a table")
        let nul = try File("name = \"a\\u0000b\"")
        #expect(refusal(["-c", nul.path])?.hasSuffix("it has a NUL") == true)
        let twice = try File("name = 'a'\nname = 'b'")
        #expect(refusal(["-c", twice.path])?.contains("line 2") == true)
    }

    @Test("random files never trap")
    func fuzz() throws {
        var random = SeededGenerator(seed: 8)
        let pieces = [
            "bind", "workers", "name", "=", " ", "\n", "[", "]", "{", "}", "\"", "'", "5", "1.5", "true", ",", ".", "é",
            "\\u0041", "1979-05-27", "inf", "nan", "#", "-", "0x", "\r", "\"\"\"", "[=]", "[}",
            "\u{a0}",
        ]
        for _ in 0..<400 {
            let count = Int.random(in: 0..<24, using: &random)
            let file = try File((0..<count).map { _ in pieces.randomElement(using: &random) ?? "" }.joined())
            _ = refusal(["-c", file.path])
        }
    }

    @Test("levels by component come from --log-config, and others from --log-level")
    func logConfig() throws {
        let file = try File("# levels\n\nrouter = debug # loud\n  Connection=ERROR\n", ending: "conf")
        let read = try settings(["--log-config", file.path, "--log-level", "warning", "--access-log", "-"])
        #expect(read.logLevel(of: .router) == .debug && read.logLevel(of: .connection) == .error)
        #expect(read.logLevel(of: .arbiter) == .warning && read.accessLog == "-")
        let quiet = try File("access = warning", ending: "conf")
        #expect(try settings(["--log-config", quiet.path, "--access-log", "-"]).accessLog == nil)
        let python = try File("; x\n".replacing("; x", with: "# x") + "[loggers]\nkeys=root\n", ending: "ini")
        #expect(
            refusal(["--log-config", python.path])?.hasPrefix("tproxy: \(python.path), line 2: '[loggers]': ") == true)
    }

    @Test("what is not there is refused by name, whatever it is given by", arguments: AbsentOption.allCases)
    func absent(option: AbsentOption) {
        #expect(refusal(["--\(option.rawValue)", "x"]) == "tproxy: \(option.spelled) \(option.reason)")
        #expect(refusal([], [option.environment: "x"]) == "tproxy: \(option.environment) \(option.reason)")
        #expect(refusal([], [option.environment: ""]) == nil)
    }
}
