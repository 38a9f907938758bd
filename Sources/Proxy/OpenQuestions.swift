// The table of questions that are not over yet, and the lists that order them. Pure, no clock, and nothing is
// allocated once it has seen its largest crowd: slots are reused, lists run through the slots themselves.

/// Who asks: a token of the worker's, handed back as it came. It must name one connection's life, not its slot alone.
struct Asker: Hashable, Sendable, BitwiseCopyable {
    let rawValue: UInt64
}

/// What is asked.
enum QuestionKind: UInt8, Sendable, BitwiseCopyable {
    /// What to do with this connection.
    case proxy
    /// What to do now that a verdict could not be carried out. Only for routers that implement it.
    case proxyError
}

/// Names one question from `ask` to its end. A token of a question that is over is recognised and does nothing.
struct QuestionToken: Hashable, Sendable, BitwiseCopyable {
    fileprivate let slot: Int32
    fileprivate let generation: UInt32
    /// Whose question it is.
    let role: RouterRole
}

/// One question, or the fixed end of a list.
struct Question: BitwiseCopyable {
    enum Phase: Equatable, BitwiseCopyable {
        /// Nobody's; or a list's fixed end.
        case free
        /// In one of the two queues, until a router has room for it.
        case waiting
        /// On its way to a router or with it. → answered, waiting (the router died), abandoned, failed
        case asked
        /// With a router that cannot be told that nobody wants the answer any more: it still counts there. → free
        case abandoned
        /// Its verdict is being carried out. → free, waiting (the router died too early)
        case answered
        /// The asker has to be told. → free
        case failed(QuestionFailure)
    }

    var phase = Phase.free
    var kind = QuestionKind.proxy
    /// How many routers died with this question open, and at how many of these deaths it was the only one.
    var replay: UInt8 = 0
    var alone: UInt8 = 0
    /// The trial it is in, 0 for none.
    var trial: UInt32 = 0
    var asker = Asker(rawValue: 0)
    /// The router it was put to last, and its id there; both mean nothing while it waits for the first one.
    var router = RouterID.none
    var id: UInt64 = 0
    /// When it was put to that router, in milliseconds of the monotonic clock.
    var askedAt: Int64 = 0
    /// When its patience ends: in the queue, or with its router.
    var deadline: Int64 = 0
    /// What `RouterLife.heard` was when it was put to that router: if it still is, the router has been silent since.
    var heardBefore: UInt64 = 0
    fileprivate var generation: UInt32 = 0
    fileprivate var previous: Int32 = 0
    fileprivate var next: Int32 = 0
}

/// A list of questions: the place of its fixed end in the table. Removing a question needs no list, so its phase need not
/// say which one it is in.
struct QuestionList: BitwiseCopyable {
    fileprivate let end: Int32
}

/// All slots, grown on demand and never beyond what was asked for at once.
struct OpenQuestions {
    private let role: RouterRole
    private var slots: ContiguousArray<Question> = []
    /// The first free slot, -1 for none; the others follow through `next`.
    private var firstFree: Int32 = -1
    /// Slots in use, the fixed ends of lists included.
    private(set) var used = 0

    init(role: RouterRole) { self.role = role }

    subscript(_ slot: Int32) -> Question {
        get { slots[Int(slot)] }
        _modify { yield &slots[Int(slot)] }
    }

    /// A slot of its own for a question, in no list.
    mutating func allocate() -> Int32 {
        used += 1
        if firstFree >= 0 {
            let slot = firstFree
            firstFree = self[slot].next
            return slot
        }
        slots.append(Question())
        return Int32(truncatingIfNeeded: slots.count &- 1)
    }

    /// Gives a slot back. It must be in no list. Tokens of it go stale here.
    mutating func free(_ slot: Int32) {
        used -= 1
        self[slot] = Question(generation: self[slot].generation &+ 1, next: firstFree)
        firstFree = slot
    }

    func token(of slot: Int32) -> QuestionToken {
        QuestionToken(slot: slot, generation: self[slot].generation, role: role)
    }

    /// The slot of a question that is not over.
    func slot(of token: QuestionToken) -> Int32? {
        guard slots.indices.contains(Int(token.slot)) else { return nil }
        let question = self[token.slot]
        return question.generation == token.generation && question.phase != .free ? token.slot : nil
    }

    // MARK: Lists

    mutating func makeList() -> QuestionList {
        let end = allocate()
        self[end].previous = end
        self[end].next = end
        return QuestionList(end: end)
    }

    /// Gives an empty list's place back.
    mutating func free(_ list: QuestionList) {
        precondition(first(of: list) == nil, "a list with questions in it was thrown away")
        free(list.end)
    }

    func first(of list: QuestionList) -> Int32? {
        let slot = self[list.end].next
        return slot == list.end ? nil : slot
    }

    func second(of list: QuestionList) -> Int32? {
        guard let first = first(of: list) else { return nil }
        let slot = self[first].next
        return slot == list.end ? nil : slot
    }

    func last(of list: QuestionList) -> Int32? {
        let slot = self[list.end].previous
        return slot == list.end ? nil : slot
    }

    mutating func append(_ slot: Int32, to list: QuestionList) {
        insert(slot, before: list.end)
    }

    /// Puts a question behind those that end before it. Nearly always it is the last, for patience is nearly always the same.
    mutating func insertByDeadline(_ slot: Int32, into list: QuestionList) {
        var after = self[list.end].previous
        while after != list.end, self[after].deadline > self[slot].deadline { after = self[after].previous }
        insert(slot, before: self[after].next)
    }

    private mutating func insert(_ slot: Int32, before next: Int32) {
        let previous = self[next].previous
        self[slot].previous = previous
        self[slot].next = next
        self[previous].next = slot
        self[next].previous = slot
    }

    /// Takes a question out of the list it is in.
    mutating func unlink(_ slot: Int32) {
        let (previous, next) = (self[slot].previous, self[slot].next)
        self[previous].next = next
        self[next].previous = previous
    }
}

extension Question {
    fileprivate init(generation: UInt32, next: Int32) {
        (self.generation, self.next) = (generation, next)
    }
}

/// Which slot has which id at one router: open addressing, at most half full. Ids rise by one, so the home place of
/// nearly every id is free: in effect a ring in which stragglers are stepped over.
struct QuestionIndex {
    private var entries: ContiguousArray<(id: UInt64, slot: Int32)>
    private let mask: Int

    /// Room for so many questions; 0 is an index that finds nothing and takes nothing.
    init(capacity: Int) {
        var size = 2
        while size < capacity &* 2 { size &*= 2 }
        entries = ContiguousArray(repeating: (id: 0, slot: 0), count: size)
        mask = size &- 1
    }

    /// Adds an id that is not there; never 0.
    mutating func insert(_ id: UInt64, _ slot: Int32) {
        var place = home(id)
        while entries[place].id != 0 { place = (place &+ 1) & mask }
        entries[place] = (id, slot)
    }

    func find(_ id: UInt64) -> Int32? {
        place(id).map { entries[$0].slot }
    }

    /// Takes an id out and closes the gap, so that there are never graves to step over.
    @discardableResult
    mutating func remove(_ id: UInt64) -> Int32? {
        guard var gap = place(id) else { return nil }
        let slot = entries[gap].slot
        var place = (gap &+ 1) & mask
        while entries[place].id != 0 {
            // An entry may move back unless its home lies behind the gap.
            if (place &- home(entries[place].id)) & mask >= (place &- gap) & mask {
                entries[gap] = entries[place]
                gap = place
            }
            place = (place &+ 1) & mask
        }
        entries[gap] = (0, 0)
        return slot
    }

    private func home(_ id: UInt64) -> Int { Int(truncatingIfNeeded: id) & mask }

    private func place(_ id: UInt64) -> Int? {
        guard id != 0 else { return nil }
        var place = home(id)
        while entries[place].id != id {
            if entries[place].id == 0 { return nil }
            place = (place &+ 1) & mask
        }
        return place
    }
}
