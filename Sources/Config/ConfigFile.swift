// What the file of `--config` says, by option. Its syntax is read elsewhere (Sources/tproxy): here are its keys.

/// The options of a configuration file, as the texts that the command line would have.
public struct ConfigFile: Sendable, Equatable {
    /// As it was given; names the file in messages.
    public let path: String
    private var texts: [OptionName: [String]] = [:]

    /// One key of the file.
    public struct Entry: Sendable, Equatable {
        public var key: String
        /// Its value as text, of a list one for each; nil when it is of a kind that no option has (a table, a date).
        public var texts: [String]?

        public init(key: String, texts: [String]?) {
            self.key = key
            self.texts = texts
        }
    }

    /// Refuses keys that are no options, by their name.
    public init(path: String, entries: [Entry]) throws(OptionError) {
        self.path = path
        for entry in entries {
            let option = try Self.option(entry.key, path: path)
            let source = Self.source(path, entry.key)
            guard let texts = entry.texts else {
                throw OptionError(option: source, value: nil, reason: "has to be a text, a number, true or false")
            }
            guard texts.count == 1 || option.isList && !texts.isEmpty else {
                let reason = texts.isEmpty ? "has no value" : "takes one value"
                throw OptionError(option: source, value: nil, reason: reason)
            }
            self.texts[option] = texts
        }
    }

    /// The values of an option, with the name under which they were given.
    func given(_ option: OptionName) -> [SettingsReader.Given] {
        (texts[option] ?? []).map { .init(text: $0, source: Self.source(path, option.rawValue)) }
    }

    private static func source(_ path: String, _ key: String) -> String {
        "\(OptionError.shown(path)): \(OptionError.shown(key))"
    }

    private static func option(_ key: String, path: String) throws(OptionError) -> OptionName {
        if let absent = AbsentOption(rawValue: key) {
            throw OptionError(option: source(path, key), value: nil, reason: absent.reason)
        }
        switch OptionName(rawValue: key) {
        case .config?: throw OptionError(option: source(path, key), value: nil, reason: "cannot name another file")
        case let option?: return option
        case nil:
            // The likeliest slip: Python's spelling of names.
            let dashed = String(key.map { $0 == "_" ? "-" : $0 })
            let hint = OptionName(rawValue: dashed).map { "; did you mean \($0.rawValue)?" } ?? ""
            throw OptionError(
                option: source(path, key), value: nil, reason: "is no option (its keys are the long names)\(hint)")
        }
    }
}
