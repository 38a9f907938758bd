// Splits `--router CMD` into the words that a POSIX shell would make of it. No shell runs: nothing is expanded, and
// `|`, `>`, `$` and `*` are characters like any other.

/// Why a command could not be split.
public enum ShellWordsError: Error, Equatable, CustomStringConvertible {
    /// A quote, the given one, without its other half.
    case unterminatedQuote(Character)
    /// A backslash with nothing behind it.
    case nothingAfterBackslash
    /// A NUL, which no argument of a process can hold.
    case nul
    /// No word at all, or an empty first one.
    case noProgram

    public var description: String {
        switch self {
        case .unterminatedQuote(let quote): "the quote \(quote) is not closed"
        case .nothingAfterBackslash: "nothing follows the last backslash"
        case .nul: "it has a NUL"
        case .noProgram: "it names no program"
        }
    }
}

/// The words of a command line.
public enum ShellWords {
    /// Splits at spaces, tabs and newlines. A backslash keeps the next character; single quotes keep everything; in
    /// double quotes a backslash means something before `$`, a backquote, `"`, a backslash and a newline alone, as POSIX
    /// says (2.2 Quoting). A backslash and a newline vanish.
    public static func split(_ command: String) throws(ShellWordsError) -> [String] {
        var words: [String] = []
        var word = String.UnicodeScalarView()
        var inWord = false
        var rest = command.unicodeScalars[...]
        while let scalar = rest.popFirst() {
            switch scalar {
            case "\0": throw .nul
            case " ", "\t", "\n":
                if inWord { words.append(String(word)) }
                (inWord, word) = (false, String.UnicodeScalarView())
            case "\\":
                guard let next = rest.popFirst() else { throw .nothingAfterBackslash }
                guard next != "\0" else { throw .nul }
                guard next != "\n" else { continue }
                word.append(next)
                inWord = true
            case "'", "\"":
                try quoted(by: scalar, from: &rest, into: &word)
                inWord = true
            default:
                word.append(scalar)
                inWord = true
            }
        }
        if inWord { words.append(String(word)) }
        guard let program = words.first, !program.isEmpty else { throw .noProgram }
        return words
    }

    /// Reads up to the closing quote; the opening one is gone already.
    private static func quoted(
        by quote: Unicode.Scalar, from rest: inout Substring.UnicodeScalarView,
        into word: inout String.UnicodeScalarView
    ) throws(ShellWordsError) {
        while let scalar = rest.popFirst() {
            if scalar == quote { return }
            guard scalar != "\0" else { throw .nul }
            guard quote == "\"", scalar == "\\", let next = rest.first, "$`\"\\\n".unicodeScalars.contains(next)
            else {
                word.append(scalar)
                continue
            }
            rest.removeFirst()
            if next != "\n" { word.append(next) }
        }
        throw .unterminatedQuote(Character(quote))
    }

    /// One line that `split` turns into these words again. For messages that quote a command.
    public static func join(_ words: [String]) -> String {
        words.map { word in
            if !word.isEmpty, word.unicodeScalars.allSatisfy(isPlain) { return word }
            return "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
        }.joined(separator: " ")
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", "-", "_", ".", "/", ":", "=", ",", "+", "@", "%": true
        default: false
        }
    }
}
