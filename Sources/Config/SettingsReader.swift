// Makes Settings of texts: the command line's, else the environment's, else the file's, else the default. The first value
// that is not allowed ends it with one line that names where it stands, the value and what is allowed.

import Addressing

/// A value that is not allowed.
public struct OptionError: Error, Equatable, CustomStringConvertible {
    /// As it was given: `-w/--workers`, `TPROXY_WORKERS`, or `tproxy.toml: workers`.
    public var option: String
    /// The value, nil when the trouble is that there is one, or none.
    public var value: String?
    /// What is allowed, or what is wrong.
    public var reason: String

    public init(option: String, value: String?, reason: String) {
        (self.option, self.value, self.reason) = (option, value, reason)
    }

    /// One line, whatever the value holds.
    public var description: String {
        guard let value else { return "\(option) \(reason)" }
        return "\(option) '\(Self.shown(value))': \(reason)"
    }

    /// A text from outside as a part of one line.
    static func shown(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(80) {
            let isControl =
                scalar.properties.generalCategory == .control || scalar.value == 0x2028 || scalar.value == 0x2029
            shown += isControl ? scalar.escaped(asASCII: true) : String(scalar)
        }
        return shown
    }
}

/// Reads options from the three places they can stand in.
public struct SettingsReader {
    private let commandLine: [OptionName: [String]]
    private let environment: [String: String]
    /// What `--config` names; added once it has been read.
    public var file: ConfigFile?

    /// `commandLine` has the values of each option that was given, in order. An empty variable is an unset one.
    public init(commandLine: [OptionName: [String]], environment: [String: String], file: ConfigFile? = nil) {
        self.commandLine = commandLine
        self.environment = environment
        self.file = file
    }

    /// An option's value and the name under which it was given.
    public struct Given: Sendable, Equatable {
        public var text: String
        public var source: String

        /// The error that this value is.
        public func refused(_ reason: String) -> OptionError {
            OptionError(option: source, value: text, reason: reason)
        }
    }

    /// The value of an option that counts once: the last one given.
    public func value(_ option: OptionName) -> Given? {
        if let text = commandLine[option]?.last { return Given(text: text, source: option.spelled) }
        if let text = environment[option.environment], !text.isEmpty {
            return Given(text: text, source: option.environment)
        }
        return file?.given(option).last
    }

    /// All settings but the levels of `--log-config`, whose file somebody else opens. `script` is what the name in process titles comes from when there is no `-n`.
    public func settings(router: RouterSpec, script: String) throws(OptionError) -> Settings {
        var settings = Settings(name: try name(script: script), router: router)
        if let binds = try binds() {
            settings.binds = binds.map(\.address)
            settings.tlsBinds = binds.indices.filter { binds[$0].isTLS }
            settings.hasExplicitBinds = true
        }
        settings.tls = try tls()
        if settings.tls == nil, let first = settings.tlsBinds.first, let given = given(.bind)?[first] {
            throw given.refused("tls:// needs \(OptionName.sslCertfile.spelled)")
        }
        settings.backlog = try number(.backlog, 1...Limits.backlogMax) ?? settings.backlog
        settings.workers = try number(.workers, 1...Limits.workersMax) ?? settings.workers
        settings.workerConnections =
            try number(.workerConnections, 1...Limits.workerConnectionsMax) ?? settings.workerConnections
        settings.workerTimeoutMilliseconds =
            try seconds(.timeout, from: 0) ?? settings.workerTimeoutMilliseconds
        try routers(&settings)
        settings.maxInitialBytes = try number(.maxInitialBytes, 1...Limits.initialBytesMax) ?? settings.maxInitialBytes
        settings.verdictTimeoutMilliseconds =
            try seconds(.verdictTimeout, from: 1) ?? settings.verdictTimeoutMilliseconds
        settings.routerTimeoutMilliseconds = try seconds(.routerTimeout, from: 1) ?? settings.routerTimeoutMilliseconds
        settings.connectTimeoutMilliseconds =
            try seconds(.connectTimeout, from: 1) ?? settings.connectTimeoutMilliseconds
        settings.gracefulTimeoutMilliseconds =
            try seconds(.gracefulTimeout, from: 0) ?? settings.gracefulTimeoutMilliseconds
        settings.silenceMilliseconds =
            try number(.silence, 1...Limits.timeoutMillisecondsMax) ?? settings.silenceMilliseconds
        settings.fallback = try fallback()
        settings.fileRoot = try path(.fileRoot, allowed: "expected a folder")
        try process(&settings)
        try logs(&settings)
        return settings
    }

    /// A router's command or socket.
    public func router(_ option: OptionName) throws(OptionError) -> RouterSpec? {
        guard let given = value(option) else { return nil }
        let spec: RouterSpec
        do throws(ShellWordsError) {
            spec = try RouterSpec(command: given.text)
        } catch {
            throw given.refused("\(error)")
        }
        if let path = spec.socketPath, !(1...Endpoint.unixPathBytesMax).contains(path.utf8.count) {
            throw given.refused("expected a path of 1 to \(Endpoint.unixPathBytesMax) bytes behind unix:")
        }
        return spec
    }

    private func routers(_ settings: inout Settings) throws(OptionError) {
        settings.routers = try number(.routers, 1...Limits.routersMax) ?? settings.routers
        settings.reload = try flag(.reload) ?? settings.reload
        settings.shadowRouter = try router(.shadowRouter)
        settings.canaryRouter = try router(.canaryRouter)
        settings.canary = try percent(.canary) ?? settings.canary
    }

    /// Reads a percentage with up to two decimals as hundredths of a percent.
    private func percent(_ option: OptionName) throws(OptionError) -> Int? {
        guard let given = value(option) else { return nil }
        let parts = given.text.dropLast().split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let (whole, decimals) = (parts.first ?? "", parts.count > 1 ? parts[1] : "0")
        guard given.text.hasSuffix("%"), (1...3).contains(whole.utf8.count), (1...2).contains(decimals.utf8.count),
            whole.utf8.allSatisfy(\.isDigit), decimals.utf8.allSatisfy(\.isDigit), let units = Int(whole),
            let rest = Int(decimals.utf8.count == 1 ? decimals + "0" : decimals), units * 100 + rest <= 10_000
        else { throw given.refused("expected a percentage, 0% to 100%, as in 5% or 0.25%") }
        return units * 100 + rest
    }

    private func process(_ settings: inout Settings) throws(OptionError) {
        settings.daemon = try flag(.daemon) ?? settings.daemon
        settings.pidFile = try path(.pid, allowed: "expected a path")
        settings.user = try account(.user)
        settings.group = try account(.group)
        settings.umask = try umask()
    }

    private func logs(_ settings: inout Settings) throws(OptionError) {
        settings.logFile = try path(.logFile) ?? settings.logFile
        settings.logLevel = try choice(.logLevel) ?? settings.logLevel
        settings.logFormat = try choice(.logFormat) ?? settings.logFormat
        settings.accessLog = try path(.accessLog)
    }

    /// The values of an option that is a list, from the first place that has any; nil when none has.
    func given(_ option: OptionName) -> [Given]? {
        if let texts = commandLine[option], !texts.isEmpty {
            return texts.map { Given(text: $0, source: option.spelled) }
        }
        if let text = environment[option.environment], !text.isEmpty {
            return text.split(separator: ",", omittingEmptySubsequences: false)
                .map { Given(text: String($0), source: option.environment) }
        }
        let texts = file?.given(option) ?? []
        return texts.isEmpty ? nil : texts
    }

    /// Nil when nobody gave any.
    private func binds() throws(OptionError) -> [(address: BindAddress, isTLS: Bool)]? {
        let option = OptionName.bind
        guard let given = given(option) else { return nil }
        guard given.count <= Limits.listenersMax else {
            throw OptionError(option: option.spelled, value: nil, reason: "may be given \(Limits.listenersMax) times")
        }
        var binds: [(address: BindAddress, isTLS: Bool)] = []
        for one in given {
            let isTLS = one.text.hasPrefix(BindAddress.tlsPrefix)
            let text = isTLS ? one.text.dropFirst(BindAddress.tlsPrefix.count) : one.text[...]
            guard let bind = BindAddress(text) else { throw one.refused("expected \(BindAddress.allowed)") }
            // With TLS and without is not possible at one address.
            guard !binds.contains(where: { $0.address == bind }) || bind.isEphemeral
            else { throw one.refused("it is given twice") }
            binds.append((bind, isTLS))
        }
        return binds
    }

    private func name(script: String) throws(OptionError) -> String {
        guard let given = value(.name) else {
            let printable = script.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7f }
            return String(String.UnicodeScalarView(printable)).cut(toBytes: Limits.nameBytesMax)
        }
        guard (1...Limits.nameBytesMax).contains(given.text.utf8.count),
            given.text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7f })
        else { throw given.refused("expected 1 to \(Limits.nameBytesMax) bytes without control characters") }
        return given.text
    }

    private func number(_ option: OptionName, _ allowed: ClosedRange<Int>) throws(OptionError) -> Int? {
        guard let given = value(option) else { return nil }
        guard given.text.utf8.allSatisfy(\.isDigit), let number = Int(given.text), allowed.contains(number)
        else { throw given.refused("expected a whole number, \(allowed.lowerBound) to \(allowed.upperBound)") }
        return number
    }

    /// Reads seconds, with up to three decimals, as milliseconds from `least` on.
    private func seconds(_ option: OptionName, from least: Int) throws(OptionError) -> Int? {
        guard let given = value(option) else { return nil }
        guard let milliseconds = Self.milliseconds(given.text), milliseconds >= least,
            milliseconds <= Limits.timeoutMillisecondsMax
        else {
            let lowest = least == 0 ? "0" : "0.001"
            throw given.refused("expected seconds, \(lowest) to \(Limits.timeoutMillisecondsMax / 1000)")
        }
        return milliseconds
    }

    /// `1`, `1.5`, `.25` or `1.` as milliseconds; nil for anything else.
    static func milliseconds(_ text: String) -> Int? {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let whole = parts.first ?? ""
        let fraction = parts.count > 1 ? parts[1] : ""
        guard whole.utf8.count + fraction.utf8.count > 0, whole.utf8.count <= 9, fraction.utf8.count <= 3,
            whole.utf8.allSatisfy(\.isDigit), fraction.utf8.allSatisfy(\.isDigit)
        else { return nil }
        let padded = fraction + String(repeating: "0", count: 3 - fraction.utf8.count)
        guard let seconds = whole.isEmpty ? 0 : Int(whole), let rest = Int(padded) else { return nil }
        return seconds * 1000 + rest
    }

    private func fallback() throws(OptionError) -> Endpoint? {
        guard let given = value(.fallback) else { return nil }
        guard let endpoint = Endpoint(given.text) else {
            throw given.refused("expected HOST:PORT, [V6]:PORT or unix:PATH")
        }
        return endpoint
    }

    private func path(
        _ option: OptionName, allowed: String = "expected a path or -"
    ) throws(OptionError) -> String? {
        guard let given = value(option) else { return nil }
        guard !given.text.isEmpty, !given.text.utf8.contains(0) else { throw given.refused(allowed) }
        return given.text
    }

    private func flag(_ option: OptionName) throws(OptionError) -> Bool? {
        guard let given = value(option) else { return nil }
        switch given.text.lowercased() {
        case "true", "yes", "on", "1": return true
        case "false", "no", "off", "0": return false
        default: throw given.refused("expected true or false")
        }
    }

    /// One of a closed set of words.
    func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ option: OptionName
    ) throws(OptionError) -> Choice? {
        guard let given = value(option) else { return nil }
        guard let choice = Choice(rawValue: given.text.lowercased()) else {
            throw given.refused("expected " + Choice.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return choice
    }

    /// A user or a group: whether it exists is seen when it is looked up.
    private func account(_ option: OptionName) throws(OptionError) -> String? {
        guard let given = value(option) else { return nil }
        // The last number is "no change" for setuid(2), so it is nobody's.
        let isAllowed =
            given.text.utf8.allSatisfy(\.isDigit)
            ? UInt32(given.text).map { $0 < UInt32.max } ?? false
            : given.text.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7f && $0 != ":" && $0 != "/" }
                && !given.text.hasPrefix("-")
        guard isAllowed else { throw given.refused("expected a name or a number, 0 to \(UInt32.max - 1)") }
        return given.text
    }

    /// Reads the classic's ways of writing a mask. Its decimal way is refused, for in `-m 22` everybody means 022.
    private func umask() throws(OptionError) -> Int? {
        guard let given = value(.umask) else { return nil }
        let text = given.text.lowercased()
        let number =
            text.hasPrefix("0x")
            ? Int(text.dropFirst(2), radix: 16)
            : text.hasPrefix("0b")
                ? Int(text.dropFirst(2), radix: 2)
                : text.hasPrefix("0o")
                    ? Int(text.dropFirst(2), radix: 8)
                    : text.hasPrefix("0") || text.utf8.count == 1 ? Int(text, radix: 8) : nil
        guard let number, (0...0o777).contains(number), text.utf8.allSatisfy(\.isLetterOrDigit) else {
            throw given.refused("expected an octal mask with a leading zero, 0 to 0777")
        }
        return number
    }
}

extension BindAddress {
    /// Whether the kernel chooses the port, so that the same text twice is two listeners.
    fileprivate var isEphemeral: Bool {
        switch self {
        case .ipv4(_, let port), .ipv6(_, let port), .name(_, let port): port == 0
        case .unix, .descriptor: false
        }
    }
}

extension UInt8 {
    fileprivate var isDigit: Bool { self >= UInt8(ascii: "0") && self <= UInt8(ascii: "9") }
    /// ASCII alone, lower case.
    fileprivate var isLetterOrDigit: Bool { isDigit || self >= UInt8(ascii: "a") && self <= UInt8(ascii: "z") }
}

extension String {
    /// The longest prefix of whole characters in so many bytes.
    fileprivate func cut(toBytes most: Int) -> String {
        var cut = self
        while cut.utf8.count > most { cut.removeLast() }
        return cut
    }
}
