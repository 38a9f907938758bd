// The file of `--log-config`: a level for each component that is to have one of its own.
//
//     # a comment
//     router = debug
//     connection = error

/// Reads levels by component.
public enum LogConfig {
    /// The levels in a file's text; `path` names it in messages.
    public static func levels(in text: String, path: String) throws(OptionError) -> [LogComponent: LogLevel] {
        var levels: [LogComponent: LogLevel] = [:]
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let words = line.prefix { $0 != "#" }.trimmed
            guard !words.isEmpty else { continue }
            func refused(_ reason: String) -> OptionError {
                OptionError(
                    option: "\(OptionError.shown(path)), line \(index + 1):", value: String(words), reason: reason)
            }
            guard !words.hasPrefix("[") else {
                throw refused("a logging configuration of Python is not read here; expected lines like router = debug")
            }
            let parts = words.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(\.trimmed)
            guard parts.count == 2 else { throw refused("expected COMPONENT = LEVEL, as in router = debug") }
            guard let component = LogComponent(rawValue: parts[0].lowercased()) else {
                throw refused("expected one of " + LogComponent.allCases.map(\.rawValue).joined(separator: ", "))
            }
            guard let level = LogLevel(rawValue: parts[1].lowercased()) else {
                throw refused("expected one of " + LogLevel.allCases.map(\.rawValue).joined(separator: ", "))
            }
            guard levels.updateValue(level, forKey: component) == nil else {
                throw refused("\(component.rawValue) is given twice")
            }
        }
        return levels
    }
}

extension Substring {
    fileprivate var trimmed: Substring {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace })
        else { return "" }
        return self[first...last]
    }
}
