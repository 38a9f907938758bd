import Addressing
import Config
import Testing

private func read(
    _ commandLine: [OptionName: [String]] = [:], _ environment: [String: String] = [:], script: String = "route.py"
) throws(OptionError) -> Settings {
    try SettingsReader(commandLine: commandLine, environment: environment)
        .settings(router: RouterSpec(arguments: ["r"], text: "r"), script: script)
}

@Suite struct SettingsReaderTests {
    @Test("without options everything has its default")
    func defaults() throws {
        let settings = try read()
        #expect(settings == Settings(name: "route.py", router: RouterSpec(arguments: ["r"], text: "r")))
        #expect(settings.binds.map(\.description) == ["127.0.0.1:5000"])
        #expect(settings.workers == 1 && settings.workerConnections == 1000 && settings.backlog == 2048)
        #expect(settings.maxInitialBytes == 65536 && settings.questionBytesMax == 458_752)
        #expect(settings.workerTimeoutMilliseconds == 30_000 && settings.verdictTimeoutMilliseconds == 30_000)
        #expect(settings.routerTimeoutMilliseconds == 5000 && settings.connectTimeoutMilliseconds == 10_000)
        #expect(settings.gracefulTimeoutMilliseconds == 10_000 && settings.silenceMilliseconds == 500)
        #expect(settings.logFile == "-" && settings.accessLog == nil && settings.logLevel == .info)
    }

    @Test("every default that the help shows is what reading it gives", arguments: OptionName.allCases)
    func shownDefaults(option: OptionName) throws {
        guard let standard = option.standard, option != .name else { return }
        #expect(try read([option: [standard]]) == read())
    }

    @Test("the command line goes before the environment, and a -b replaces instead of adding")
    func precedence() throws {
        let environment = [
            "TPROXY_BIND": "1,unix:/tmp/x", "TPROXY_WORKERS": "2", "TPROXY_LOG_LEVEL": "", "TPROXY_NOBODY_KNOWS": "!",
        ]
        #expect(try read([:], environment).binds.map(\.description) == ["127.0.0.1:1", "unix:/tmp/x"])
        #expect(try read([:], environment).workers == 2)
        let settings = try read([.bind: ["5", ":6"], .workers: ["3", "4"]], environment)
        #expect(settings.binds.map(\.description) == ["127.0.0.1:5", "0.0.0.0:6"])
        #expect(settings.workers == 4)
    }

    @Test(
        "seconds have up to three decimals",
        arguments: [
            ("1", 1000), ("0.5", 500), (".25", 250), ("2.", 2000), ("0.001", 1), ("86400", 86_400_000),
            ("1.250", 1250),
        ])
    func seconds(text: String, expected: Int) throws {
        #expect(try read([.routerTimeout: [text]]).routerTimeoutMilliseconds == expected)
    }

    @Test("no time at all is allowed where it means something")
    func zero() throws {
        #expect(try read([.timeout: ["0"]]).workerTimeoutMilliseconds == 0)
        #expect(try read([.gracefulTimeout: ["0"]]).gracefulTimeoutMilliseconds == 0)
    }

    @Test(
        "a wrong value is refused in one line that names the option, the value and what is allowed",
        arguments: [
            (.workers, "0", "-w/--workers '0': expected a whole number, 1 to 512"),
            (.workers, "+1", "-w/--workers '+1': expected a whole number, 1 to 512"),
            (
                .workers, "99999999999999999999",
                "-w/--workers '99999999999999999999': expected a whole number, 1 to 512"
            ),
            (.routerTimeout, "0", "--router-timeout '0': expected seconds, 0.001 to 86400"),
            (.timeout, "1e3", "-t/--timeout '1e3': expected seconds, 0 to 86400"),
            (.verdictTimeout, "inf", "--verdict-timeout 'inf': expected seconds, 0.001 to 86400"),
            (.connectTimeout, "1.2345", "--connect-timeout '1.2345': expected seconds, 0.001 to 86400"),
            (.gracefulTimeout, ".", "--graceful-timeout '.': expected seconds, 0 to 86400"),
            (.gracefulTimeout, "86400.001", "--graceful-timeout '86400.001': expected seconds, 0 to 86400"),
            (.maxInitialBytes, "2000000", "--max-initial-bytes '2000000': expected a whole number, 1 to 1048576"),
            (.bind, "99999", "-b/--bind '99999': expected \(BindAddress.allowed)"),
            (.bind, "tls://443", "-b/--bind 'tls://443': tls:// is not available in this version"),
            (.fallback, "x", "--fallback 'x': expected HOST:PORT, [V6]:PORT or unix:PATH"),
            (.logLevel, "loud", "--log-level 'loud': expected debug, info, warning, error, critical"),
            (.logFile, "", "--log-file '': expected a path or -"),
            (.name, "a\nb", "-n/--name 'a\\nb': expected 1 to 64 bytes without control characters"),
        ] as [(OptionName, String, String)])
    func refused(option: OptionName, text: String, message: String) {
        let error = #expect(throws: OptionError.self) { try read([option: [text]]) }
        #expect(error?.description == message)
    }

    @Test("an error in the environment names the variable")
    func environmentErrors() {
        let error = #expect(throws: OptionError.self) { try read([:], ["TPROXY_MAX_INITIAL_BYTES": "x"]) }
        #expect(error?.description.hasPrefix("TPROXY_MAX_INITIAL_BYTES 'x': ") == true)
        let second = #expect(throws: OptionError.self) { try read([:], ["TPROXY_BIND": "1,,2"]) }
        #expect(second?.description.hasPrefix("TPROXY_BIND '': ") == true)
    }

    @Test("the same address twice is refused, but any free port twice is two listeners")
    func twice() throws {
        #expect(throws: OptionError.self) { try read([.bind: ["80", "127.0.0.1:80"]]) }
        #expect(try read([.bind: ["0", "0"]]).binds.count == 2)
    }

    @Test("the name comes from the script, cut at a character")
    func names() throws {
        #expect(try read(script: "a\u{1b}[31m").name == "a[31m")
        #expect(try read(script: String(repeating: "é", count: 40)).name == String(repeating: "é", count: 32))
        #expect(try read([.name: ["front"]]).name == "front")
    }

    @Test("random values never trap")
    func fuzz() {
        var random = SeededGenerator(state: 5)
        let alphabet = Array("0123456789.:-[]/,unixfdé\0 ".unicodeScalars)
        for _ in 0..<20_000 {
            guard let option = OptionName.allCases.randomElement(using: &random) else { continue }
            let text = random.text(of: alphabet, lengthBelow: 12)
            do throws(OptionError) {
                _ = try read([option: [text]])
            } catch {
                #expect(!error.description.utf8.contains(10))
            }
        }
    }
}
