// What two routers said to the same question, until both have spoken. Pure: who asks and who logs is the worker's side.

import RouterProtocol

/// What a router said to a question.
enum Outcome: Equatable {
    case verdict(Verdict)
    /// A JSON-RPC error, or a verdict that is none.
    case refused

    /// What both routers can be held to: descriptors and cache rules are each one's own.
    var comparable: Outcome {
        guard case .verdict(let verdict) = self else { return self }
        switch verdict {
        case .undecided, .exchange: return self
        case .remote(var remote):
            remote.cache = nil
            return .verdict(.remote(remote))
        case .close(var close):
            close.cache = nil
            return .verdict(.close(close))
        case .file(var file):
            file.cache = nil
            if case .descriptor = file.source { file.source = .descriptor(0, attached: true) }
            return .verdict(.file(file))
        }
    }

    /// In a few words for the log; bytes from outside are counted, not shown.
    var words: String {
        switch self {
        case .refused: return "an error"
        case .verdict(.undecided(let count)): return count.map { "wait for \($0) bytes" } ?? "not yet"
        case .verdict(.exchange(let exchange)):
            return "a reply of \(exchange.reply.count) bytes, \(exchange.consume) consumed"
        case .verdict(.remote(let remote)):
            return "remote " + remote.remotes.prefix(4).map { "\($0)" }.joined(separator: ", ")
        case .verdict(.close(let close)): return close.reset ? "a reset" : "close with \(close.bytes.count) bytes"
        case .verdict(.file(let file)):
            if case .path(let path) = file.source { return "file \(String(path.prefix(100)))" }
            return "a file descriptor"
        }
    }
}

/// The questions that a shadow has been asked and that are not compared yet. As many as the shadow may have open at most.
struct ShadowComparisons {
    struct Entry {
        /// Who asked the router that decides.
        let asker: Asker
        /// How many bytes the question had: what a verdict is checked against.
        let dataBytes: Int
        var token: QuestionToken?
        var decided: Outcome?
        var shadowed: Outcome?
    }

    /// By the number that the shadow's question has as its asker.
    private var entries: [UInt64: Entry] = [:]
    /// The entry of each asker whose question is not decided yet.
    private var numbers: [Asker: UInt64] = [:]
    /// Beyond those who ask the router that decides: their numbers are tokens.
    private var last: UInt64 = 1 << 63

    var count: Int { entries.count }

    /// Begins an entry; its number is the asker of the shadow's question.
    mutating func begin(_ asker: Asker, dataBytes: Int) -> Asker {
        last &+= 1
        entries[last] = Entry(asker: asker, dataBytes: dataBytes)
        numbers[asker] = last
        return Asker(rawValue: last)
    }

    mutating func asked(_ shadow: Asker, _ token: QuestionToken) { entries[shadow.rawValue]?.token = token }

    subscript(_ shadow: Asker) -> Entry? { entries[shadow.rawValue] }

    /// The router that decides has answered. What the two said, when they differ.
    mutating func decided(_ asker: Asker, _ outcome: Outcome) -> Comparison? {
        guard let number = numbers.removeValue(forKey: asker) else { return nil }
        entries[number]?.decided = outcome
        return compare(number)
    }

    /// The shadow has answered.
    mutating func shadowed(_ shadow: Asker, _ outcome: Outcome) -> Comparison? {
        entries[shadow.rawValue]?.shadowed = outcome
        return compare(shadow.rawValue)
    }

    /// Both answers to one question.
    struct Comparison: Equatable {
        let asker: Asker
        let decided: Outcome
        let shadowed: Outcome

        var isSame: Bool { decided.comparable == shadowed.comparable }
    }

    private mutating func compare(_ number: UInt64) -> Comparison? {
        guard let entry = entries[number], let decided = entry.decided, let shadowed = entry.shadowed else {
            return nil
        }
        entries[number] = nil
        return Comparison(asker: entry.asker, decided: decided, shadowed: shadowed)
    }

    /// The question will not be decided: the shadow's, to be withdrawn.
    mutating func undecided(_ asker: Asker) -> (shadow: Asker, token: QuestionToken)? {
        guard let number = numbers.removeValue(forKey: asker) else { return nil }
        return entries.removeValue(forKey: number)?.token.map { (Asker(rawValue: number), $0) }
    }

    /// The shadow will not answer.
    mutating func failed(_ shadow: Asker) {
        guard let entry = entries.removeValue(forKey: shadow.rawValue) else { return }
        if numbers[entry.asker] == shadow.rawValue { numbers[entry.asker] = nil }
    }

    /// Forgets all; the shadow's questions, to be withdrawn, and whose they were.
    mutating func clear() -> [(shadow: Asker, asker: Asker, token: QuestionToken)] {
        defer {
            entries.removeAll()
            numbers.removeAll()
        }
        return entries.compactMap { number, entry in
            entry.token.map { (Asker(rawValue: number), entry.asker, $0) }
        }
    }
}
