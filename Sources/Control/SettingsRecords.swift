// Settings as keys and values, for the document a child inherits. A setting that is not listed here does not reach the
// workers; ControlTests compares the list with the properties of `Settings`.

import Addressing
public import Config

/// One key and its value. A key may come several times: then it is a list, in order.
public struct Record: Hashable, Sendable {
    public let key: String
    public let value: String

    public init(_ key: String, _ value: String) {
        self.key = key
        self.value = value
    }
}

extension Settings {
    private static var numbers: [(key: String, path: WritableKeyPath<Settings, Int>)] {
        [
            ("backlog", \.backlog),
            ("workers", \.workers),
            ("routers", \.routers),
            ("canary", \.canary),
            ("workerConnections", \.workerConnections),
            ("workerTimeoutMilliseconds", \.workerTimeoutMilliseconds),
            ("maxInitialBytes", \.maxInitialBytes),
            ("verdictTimeoutMilliseconds", \.verdictTimeoutMilliseconds),
            ("routerTimeoutMilliseconds", \.routerTimeoutMilliseconds),
            ("connectTimeoutMilliseconds", \.connectTimeoutMilliseconds),
            ("gracefulTimeoutMilliseconds", \.gracefulTimeoutMilliseconds),
            ("silenceMilliseconds", \.silenceMilliseconds),
        ]
    }

    private static var flags: [(key: String, path: WritableKeyPath<Settings, Bool>)] {
        [("hasExplicitBinds", \.hasExplicitBinds), ("daemon", \.daemon), ("reload", \.reload)]
    }

    /// Routers that are known by their command alone.
    private static var commands: [(key: String, path: WritableKeyPath<Settings, RouterSpec?>)] {
        [("shadowRouter", \.shadowRouter), ("canaryRouter", \.canaryRouter)]
    }

    /// What may be absent.
    private static var texts: [(key: String, path: WritableKeyPath<Settings, String?>)] {
        [
            ("pidFile", \.pidFile), ("user", \.user), ("group", \.group), ("accessLog", \.accessLog),
            ("fileRoot", \.fileRoot),
        ]
    }

    /// Everything, as records.
    public var records: [Record] {
        var records = [Record("name", name)]
        records += binds.map { Record("binds", $0.description) }
        records += tlsBinds.map { Record("tlsBinds", String($0)) }
        records += tls?.records ?? []
        records += Self.numbers.map { Record($0.key, String(self[keyPath: $0.path])) }
        records.append(Record("router", router.text))
        records += router.arguments.map { Record("routerArgument", $0) }
        for (key, path) in Self.commands {
            if let router = self[keyPath: path] { records.append(Record(key, router.text)) }
        }
        if let fallback { records.append(Record("fallback", fallback.description)) }
        records += Self.flags.map { Record($0.key, self[keyPath: $0.path] ? "1" : "0") }
        for (key, path) in Self.texts {
            if let text = self[keyPath: path] { records.append(Record(key, text)) }
        }
        if let umask { records.append(Record("umask", String(umask))) }
        records.append(Record("logFile", logFile))
        records.append(Record("logLevel", logLevel.rawValue))
        for component in LogComponent.allCases {
            guard let level = logLevels[component] else { continue }
            records.append(Record("logLevels", "\(component.rawValue)=\(level.rawValue)"))
        }
        records.append(Record("logFormat", logFormat.rawValue))
        return records
    }

    /// Reads what `records` wrote; a key that is missing keeps its default, an unknown one is ignored.
    public init(records: [Record]) throws(InheritanceError) {
        let values = Dictionary(grouping: records, by: \.key).mapValues { $0.map(\.value) }
        guard let name = values["name"]?.last else { throw .missing("name") }
        guard let text = values["router"]?.last else { throw .missing("router") }
        let router = RouterSpec(arguments: values["routerArgument"] ?? [], text: text)
        guard !router.arguments.isEmpty || router.socketPath != nil else { throw .missing("router") }
        self.init(name: name, router: router)
        for (key, path) in Self.commands {
            guard let value = values[key]?.last else { continue }
            guard let command = try? RouterSpec(command: value) else { throw .invalid(key: key, value: value) }
            self[keyPath: path] = command
        }
        for (key, path) in Self.numbers {
            guard let value = values[key]?.last else { continue }
            guard let number = Int(value), number >= 0 else { throw .invalid(key: key, value: value) }
            self[keyPath: path] = number
        }
        if let texts = values["binds"] {
            binds = []
            for text in texts {
                guard let bind = BindAddress(text) else { throw .invalid(key: "binds", value: text) }
                binds.append(bind)
            }
        }
        for value in values["tlsBinds"] ?? [] {
            guard let place = Int(value), binds.indices.contains(place) else {
                throw .invalid(key: "tlsBinds", value: value)
            }
            tlsBinds.append(place)
        }
        tls = try TLSSettings(records: values)
        if let value = values["fallback"]?.last {
            guard let endpoint = Endpoint(value) else { throw .invalid(key: "fallback", value: value) }
            fallback = endpoint
        }
        for (key, path) in Self.flags {
            guard let value = values[key]?.last else { continue }
            guard value == "0" || value == "1" else { throw .invalid(key: key, value: value) }
            self[keyPath: path] = value == "1"
        }
        for (key, path) in Self.texts { self[keyPath: path] = values[key]?.last }
        if let value = values["umask"]?.last {
            guard let mask = Int(value), (0...0o777).contains(mask) else { throw .invalid(key: "umask", value: value) }
            umask = mask
        }
        try readLogs(values)
    }

    private mutating func readLogs(_ values: [String: [String]]) throws(InheritanceError) {
        if let value = values["logFile"]?.last { logFile = value }
        if let value = values["logLevel"]?.last {
            guard let level = LogLevel(rawValue: value) else { throw .invalid(key: "logLevel", value: value) }
            logLevel = level
        }
        for value in values["logLevels"] ?? [] {
            let parts = value.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, let component = LogComponent(rawValue: parts[0]),
                let level = LogLevel(rawValue: parts[1])
            else { throw .invalid(key: "logLevels", value: value) }
            logLevels[component] = level
        }
        if let value = values["logFormat"]?.last {
            guard let format = LogFormat(rawValue: value) else { throw .invalid(key: "logFormat", value: value) }
            logFormat = format
        }
    }
}

extension TLSSettings {
    fileprivate var records: [Record] {
        var records = certificateFiles.map { Record("tls.certificateFile", $0) }
        records += keyFiles.map { Record("tls.keyFile", $0) }
        if let clientAuthoritiesFile { records.append(Record("tls.clientAuthoritiesFile", clientAuthoritiesFile)) }
        records.append(Record("tls.clientCertificates", String(clientCertificates.rawValue)))
        if let ciphers { records.append(Record("tls.ciphers", ciphers)) }
        records.append(Record("tls.versionMin", versionMin.rawValue))
        records += alpn.map { Record("tls.alpn", $0) }
        return records
    }

    /// Nil when there are none.
    fileprivate init?(records values: [String: [String]]) throws(InheritanceError) {
        guard let files = values["tls.certificateFile"] else { return nil }
        self.init(certificateFiles: files)
        keyFiles = values["tls.keyFile"] ?? []
        clientAuthoritiesFile = values["tls.clientAuthoritiesFile"]?.last
        if let value = values["tls.clientCertificates"]?.last {
            guard let requirement = Int(value).flatMap(CertificateRequirement.init(rawValue:)) else {
                throw .invalid(key: "tls.clientCertificates", value: value)
            }
            clientCertificates = requirement
        }
        ciphers = values["tls.ciphers"]?.last
        if let value = values["tls.versionMin"]?.last {
            guard let version = TLSVersion(rawValue: value) else {
                throw .invalid(key: "tls.versionMin", value: value)
            }
            versionMin = version
        }
        alpn = values["tls.alpn"] ?? []
    }
}
