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
        #expect(settings.logFormat == .text && settings.logLevels.isEmpty && !settings.daemon)
        #expect(settings.pidFile == nil && settings.user == nil && settings.group == nil && settings.umask == nil)
        #expect(!settings.hasExplicitBinds)
    }

    @Test("every default that the help shows is what reading it gives", arguments: OptionName.allCases)
    func shownDefaults(option: OptionName) throws {
        guard let standard = option.standard, option != .name else { return }
        var plain = try read()
        plain.hasExplicitBinds = option == .bind
        #expect(try read([option: [standard]]) == plain)
    }

    @Test(
        "a mask is octal, or the classic's hexadecimal",
        arguments: [("0", 0), ("7", 7), ("022", 0o22), ("0777", 0o777), ("0o27", 0o27), ("0x12", 0o22), ("0B10", 2)])
    func masks(text: String, expected: Int) throws {
        #expect(try read([.umask: [text]]).umask == expected)
    }

    @Test("users and groups are names or numbers, kept as they were given")
    func accounts() throws {
        for text in ["www-data", "0", "1000", "4294967294", "DOMAIN\\user", "é"] {
            #expect(try read([.user: [text]]).user == text)
            #expect(try read([:], ["TPROXY_GROUP": text]).group == text)
        }
    }

    @Test(
        "a flag takes the usual words",
        arguments: [("1", true), ("Yes", true), ("on", true), ("false", false), ("0", false)])
    func flags(text: String, expected: Bool) throws {
        #expect(try read([:], ["TPROXY_DAEMON": text]).daemon == expected)
    }

    @Test("the file comes last, and its errors name it and the key")
    func files() throws {
        let file = try ConfigFile(
            path: "t.toml",
            entries: [.init(key: "workers", texts: ["3"]), .init(key: "bind", texts: ["1", "2"])])
        func read(_ commandLine: [OptionName: [String]], _ environment: [String: String]) throws -> Settings {
            try SettingsReader(commandLine: commandLine, environment: environment, file: file)
                .settings(router: RouterSpec(arguments: ["r"], text: "r"), script: "r")
        }
        #expect(try read([:], [:]).workers == 3 && read([:], [:]).binds.count == 2)
        #expect(try read([:], ["TPROXY_WORKERS": "4"]).workers == 4)
        #expect(try read([.workers: ["5"], .bind: ["9"]], ["TPROXY_WORKERS": "4"]).workers == 5)
        #expect(try read([.bind: ["9"]], [:]).binds.count == 1)
        let error = #expect(throws: OptionError.self) {
            try ConfigFile(path: "a\u{1b}b", entries: [.init(key: "wörkers\n", texts: ["1"])])
        }
        #expect(error?.description == "a\\u{1B}b: wörkers\\n is no option (its keys are the long names)")
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
            (.bind, "tls://443", "-b/--bind 'tls://443': tls:// needs --ssl-certfile"),
            (.bind, "tls://tls://443", "-b/--bind 'tls://tls://443': expected \(BindAddress.allowed)"),
            (.sslCertfile, "", "--ssl-certfile '': expected a path"),
            (.sslKeyfile, "x", "--ssl-keyfile needs --ssl-certfile"),
            (.sslCACerts, "x", "--ssl-ca-certs needs --ssl-certfile"),
            (.sslCertReqs, "2", "--ssl-cert-reqs needs --ssl-certfile"),
            (.sslCiphers, "x", "--ssl-ciphers needs --ssl-certfile"),
            (.sslMinVersion, "1.3", "--ssl-min-version needs --ssl-certfile"),
            (.sslALPN, "x", "--ssl-alpn needs --ssl-certfile"),
            (.fallback, "x", "--fallback 'x': expected HOST:PORT, [V6]:PORT or unix:PATH"),
            (.logLevel, "loud", "--log-level 'loud': expected debug, info, warning, error, critical"),
            (.logFormat, "xml", "--log-format 'xml': expected text, json"),
            (.canary, "5", "--canary '5': expected a percentage, 0% to 100%, as in 5% or 0.25%"),
            (.canary, "100.01%", "--canary '100.01%': expected a percentage, 0% to 100%, as in 5% or 0.25%"),
            (.canary, "%", "--canary '%': expected a percentage, 0% to 100%, as in 5% or 0.25%"),
            (.routers, "17", "--routers '17': expected a whole number, 1 to 16"),
            (.shadowRouter, "unix:", "--shadow-router 'unix:': expected a path of 1 to 107 bytes behind unix:"),
            (.umask, "22", "-m/--umask '22': expected an octal mask with a leading zero, 0 to 0777"),
            (.umask, "08", "-m/--umask '08': expected an octal mask with a leading zero, 0 to 0777"),
            (.umask, "01000", "-m/--umask '01000': expected an octal mask with a leading zero, 0 to 0777"),
            (.umask, "0x-1", "-m/--umask '0x-1': expected an octal mask with a leading zero, 0 to 0777"),
            (.user, "", "-u/--user '': expected a name or a number, 0 to 4294967294"),
            (.user, "4294967295", "-u/--user '4294967295': expected a name or a number, 0 to 4294967294"),
            (.group, "a:b", "-g/--group 'a:b': expected a name or a number, 0 to 4294967294"),
            (.pid, "", "-p/--pid '': expected a path"),
            (.daemon, "perhaps", "-D/--daemon 'perhaps': expected true or false"),
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

    @Test("a canary has a share, 5 % unless it is said")
    func canary() throws {
        let settings = try read([.canaryRouter: ["sh -c 'x y'"], .canary: ["0.25%"]])
        #expect(settings.canaryRouter?.arguments == ["sh", "-c", "x y"] && settings.canary == 25)
        #expect(try read([.canaryRouter: ["x"], .canary: ["100%"]]).canary == 10_000)
        #expect(try read([.canaryRouter: ["x"]]).canary == 500)
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
        var random = SeededGenerator(seed: 5)
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
