// The command line: what ArgumentParser makes of it, and Settings of that. Only the arbiter's process comes here; a worker
// takes up its role before the parser is touched.

import ArgumentParser
import Config

/// The command line as tproxy reads it.
enum CommandLineOptions {
    /// What the command line asks for.
    enum Outcome {
        /// Serve with these settings.
        case serve(Settings)
        /// Write this to standard output and end with status 0: help, version, a completion script.
        case answer(String)
        /// Write this line to standard error and end with `wrongOptionsStatus`.
        case refuse(String)
    }

    /// The exit status of wrong options.
    static let wrongOptionsStatus: Int32 = 2

    /// Reads `arguments`, without the program's name. Looks at files (the script, the Python runner), binds and starts nothing.
    static func parse(arguments: [String], environment: [String: String]) -> Outcome {
        let command: Command
        do {
            command = try Command.parse(arguments)
        } catch {
            let text = Command.fullMessage(for: error)
            guard Command.exitCode(for: error) != .success else { return .answer(text) }
            // The usage behind the first line helps nobody to find what is wrong.
            let line = text.split(separator: "\n").first.map(String.init) ?? "wrong options"
            return .refuse(line.replacing("Error: ", with: "tproxy: ", maxReplacements: 1) + " (see tproxy --help)")
        }
        do throws(OptionError) {
            return .serve(try command.settings(environment: environment))
        } catch {
            return .refuse("tproxy: \(error)")
        }
    }
}

/// The options as ArgumentParser declares them. Values stay texts: the checks, and the messages, are Config's. The word
/// behind an option is its value whatever it looks like, so that `-w -1` is refused for what it is.
struct Command: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tproxy",
        abstract: "A TCP proxy that asks your own program where each connection goes.",
        usage: """
            tproxy [OPTIONS] SCRIPT.py
            tproxy [OPTIONS] --router 'python3 route.py'
            """,
        discussion: """
            SCRIPT is a Python file with a function proxy(data), or a module, or module:object. Any other program is a \
            router too: see --router. Each option can come from the environment instead: TPROXY_BIND=5000,unix:/run/t.sock. \
            The command line goes before the environment, and that before the file of --config.
            """,
        version: "tproxy \(Product.version)")

    @Argument(help: "A Python script, module or module:object with a proxy function.") var script: String?

    @Option(name: names(.config), parsing: .unconditional, help: help(.config)) var config: String?
    @Option(name: names(.router), parsing: .unconditional, help: help(.router)) var router: String?
    @Option(name: names(.routers), parsing: .unconditional, help: help(.routers)) var routers: String?
    @Flag(name: names(.reload), help: help(.reload)) var reload = false
    @Option(name: names(.shadowRouter), parsing: .unconditional, help: help(.shadowRouter)) var shadowRouter: String?
    @Option(name: names(.canaryRouter), parsing: .unconditional, help: help(.canaryRouter)) var canaryRouter: String?
    @Option(name: names(.canary), parsing: .unconditional, help: help(.canary)) var canary: String?
    @Option(name: names(.bind), parsing: .unconditionalSingleValue, help: help(.bind)) var bind: [String] = []
    @Option(name: names(.backlog), parsing: .unconditional, help: help(.backlog)) var backlog: String?
    @Option(name: names(.sslCertfile), parsing: .unconditionalSingleValue, help: help(.sslCertfile))
    var sslCertfile: [String] = []
    @Option(name: names(.sslKeyfile), parsing: .unconditionalSingleValue, help: help(.sslKeyfile))
    var sslKeyfile: [String] = []
    @Option(name: names(.sslCACerts), parsing: .unconditional, help: help(.sslCACerts)) var sslCACerts: String?
    @Option(name: names(.sslCertReqs), parsing: .unconditional, help: help(.sslCertReqs)) var sslCertReqs: String?
    @Option(name: names(.sslCiphers), parsing: .unconditional, help: help(.sslCiphers)) var sslCiphers: String?
    @Option(name: names(.sslMinVersion), parsing: .unconditional, help: help(.sslMinVersion)) var sslMinVersion: String?
    @Option(name: names(.sslALPN), parsing: .unconditional, help: help(.sslALPN)) var sslALPN: String?
    @Option(name: names(.workers), parsing: .unconditional, help: help(.workers)) var workers: String?
    @Option(name: names(.workerConnections), parsing: .unconditional, help: help(.workerConnections))
    var workerConnections: String?
    @Option(name: names(.timeout), parsing: .unconditional, help: help(.timeout)) var timeout: String?
    @Option(name: names(.name), parsing: .unconditional, help: help(.name)) var name: String?
    @Option(name: names(.maxInitialBytes), parsing: .unconditional, help: help(.maxInitialBytes)) var maxInitialBytes:
        String?
    @Option(name: names(.verdictTimeout), parsing: .unconditional, help: help(.verdictTimeout)) var verdictTimeout:
        String?
    @Option(name: names(.routerTimeout), parsing: .unconditional, help: help(.routerTimeout)) var routerTimeout: String?
    @Option(name: names(.connectTimeout), parsing: .unconditional, help: help(.connectTimeout)) var connectTimeout:
        String?
    @Option(name: names(.gracefulTimeout), parsing: .unconditional, help: help(.gracefulTimeout)) var gracefulTimeout:
        String?
    @Option(name: names(.silence), parsing: .unconditional, help: help(.silence)) var silence: String?
    @Option(name: names(.fallback), parsing: .unconditional, help: help(.fallback)) var fallback: String?
    @Option(name: names(.fileRoot), parsing: .unconditional, help: help(.fileRoot)) var fileRoot: String?
    @Flag(name: names(.daemon), help: help(.daemon)) var daemon = false
    @Option(name: names(.pid), parsing: .unconditional, help: help(.pid)) var pid: String?
    @Option(name: names(.user), parsing: .unconditional, help: help(.user)) var user: String?
    @Option(name: names(.group), parsing: .unconditional, help: help(.group)) var group: String?
    @Option(name: names(.umask), parsing: .unconditional, help: help(.umask)) var umask: String?
    @Option(name: names(.logFile), parsing: .unconditional, help: help(.logFile)) var logFile: String?
    @Option(name: names(.logLevel), parsing: .unconditional, help: help(.logLevel)) var logLevel: String?
    @Option(name: names(.logConfig), parsing: .unconditional, help: help(.logConfig)) var logConfig: String?
    @Option(name: names(.logFormat), parsing: .unconditional, help: help(.logFormat)) var logFormat: String?
    @Option(name: names(.accessLog), parsing: .unconditional, help: help(.accessLog)) var accessLog: String?
    @OptionGroup(visibility: .private) var absent: AbsentOptions

    /// The texts that were given, by option.
    private var given: [OptionName: [String]] {
        let single: [(OptionName, String?)] = [
            (.config, config), (.router, router), (.routers, routers), (.shadowRouter, shadowRouter),
            (.canaryRouter, canaryRouter), (.canary, canary), (.backlog, backlog), (.workers, workers),
            (.workerConnections, workerConnections),
            (.timeout, timeout), (.name, name), (.maxInitialBytes, maxInitialBytes),
            (.verdictTimeout, verdictTimeout), (.routerTimeout, routerTimeout), (.connectTimeout, connectTimeout),
            (.gracefulTimeout, gracefulTimeout), (.silence, silence), (.fallback, fallback),
            (.fileRoot, fileRoot), (.pid, pid), (.user, user), (.group, group), (.umask, umask), (.logFile, logFile),
            (.logLevel, logLevel),
            (.logConfig, logConfig), (.logFormat, logFormat), (.accessLog, accessLog),
            (.sslCACerts, sslCACerts), (.sslCertReqs, sslCertReqs), (.sslCiphers, sslCiphers),
            (.sslMinVersion, sslMinVersion), (.sslALPN, sslALPN),
        ]
        let lists: [(OptionName, [String])] = [
            (.bind, bind), (.sslCertfile, sslCertfile), (.sslKeyfile, sslKeyfile),
        ]
        var given: [OptionName: [String]] = [:]
        for (option, texts) in lists where !texts.isEmpty { given[option] = texts }
        for case (let option, let text?) in single { given[option] = [text] }
        if daemon { given[.daemon] = ["true"] }
        if reload { given[.reload] = ["true"] }
        return given
    }

    func settings(environment: [String: String]) throws(OptionError) -> Settings {
        if let absent = absent.given {
            throw OptionError(option: absent.spelled, value: nil, reason: absent.reason)
        }
        if let absent = AbsentOption.allCases.first(where: { environment[$0.environment] ?? "" != "" }) {
            throw OptionError(option: absent.environment, value: nil, reason: absent.reason)
        }
        var reader = SettingsReader(commandLine: given, environment: environment)
        if let config = reader.value(.config) { reader.file = try ConfigFile(reading: config) }
        let (router, name) = try router(reader, environment)
        var settings = try reader.settings(router: router, script: name)
        if let logConfig = reader.value(.logConfig) {
            settings.setLogLevels(try LogConfig.levels(in: TextFile.contents(logConfig), path: logConfig.text))
        }
        return settings
    }

    /// The router, and what it is called.
    private func router(
        _ reader: SettingsReader, _ environment: [String: String]
    ) throws(OptionError) -> (RouterSpec, name: String) {
        // A script on the command line goes before TPROXY_ROUTER, as every option does; two routers on it are one too many.
        if let script {
            guard router == nil else {
                throw OptionError(
                    option: "--router", value: nil, reason: "and a script are two routers: give one of them")
            }
            let classic = ClassicScript(script)
            return (try classic.router(environment: environment), classic.name)
        }
        guard let router = try reader.router(.router) else {
            throw OptionError(
                option: "--router", value: nil,
                reason: "or a script is needed: tproxy SCRIPT.py, or tproxy --router 'python3 route.py'")
        }
        return (router, router.text)
    }

    fileprivate static func names(_ option: OptionName) -> NameSpecification {
        guard let letter = option.letter else { return .customLong(option.rawValue) }
        return [.customShort(letter, allowingJoined: true), .customLong(option.rawValue)]
    }

    private static func help(_ option: OptionName) -> ArgumentHelp {
        let standard = option.standard.map { " (default: \($0))" } ?? ""
        return ArgumentHelp("\(option.about)\(standard)", valueName: option.placeholder)
    }
}

/// What this version does not have; parsed so that it can be refused by name.
struct AbsentOptions: ParsableArguments {
    @Option(name: names(.admin), parsing: .unconditional) var admin: String?

    /// The first of them that was given.
    var given: AbsentOption? {
        admin == nil ? nil : .admin
    }

    private static func names(_ option: AbsentOption) -> NameSpecification { .customLong(option.rawValue) }
}
