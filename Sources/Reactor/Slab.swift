// Storage for many values of one kind whose places are reused: no allocation per value, stable addresses.

/// A slab of noncopyable values. A value is found by its slot and the generation of its slot.
///
/// Memory grows by chunks and is kept: the most that was ever needed at once. The caller bounds that.
@safe public struct Slab<Element: ~Copyable>: ~Copyable {
    private struct Slot {
        var generation: UInt32
        /// Whether the element's memory holds a value.
        var isTaken: Bool
        var nextFree: UInt32
    }

    private static var chunkSize: UInt32 { 256 }
    private static var none: UInt32 { .max }

    private var chunks: [UnsafeMutablePointer<Element>] = unsafe []
    private var slots: [Slot] = []
    private var firstFree: UInt32 = Slab.none
    /// How many values there are.
    public private(set) var count = 0

    public init() {}

    /// Makes room for one value and says where it will be; `initialize` must follow.
    private mutating func takeSlot() -> UInt32 {
        if firstFree == Self.none { grow() }
        let slot = firstFree
        firstFree = slots[Int(slot)].nextFree
        slots[Int(slot)].isTaken = true
        count += 1
        return slot
    }

    private mutating func grow() {
        let start = UInt32(slots.count)
        unsafe chunks.append(.allocate(capacity: Int(Self.chunkSize)))
        for index in (start..<start + Self.chunkSize) {
            let next = index + 1 == start + Self.chunkSize ? firstFree : index + 1
            slots.append(Slot(generation: 0, isTaken: false, nextFree: next))
        }
        firstFree = start
    }

    private func pointer(_ slot: UInt32) -> UnsafeMutablePointer<Element> {
        unsafe chunks[Int(slot / Self.chunkSize)] + Int(slot % Self.chunkSize)
    }

    /// Puts a value in and returns its place. `make` is told the place first, to name its registrations.
    public mutating func insert(_ make: (_ slot: UInt32, _ generation: UInt32) -> Element) -> UInt32 {
        let slot = takeSlot()
        unsafe pointer(slot).initialize(to: make(slot, slots[Int(slot)].generation))
        return slot
    }

    /// Takes a value out; its generation ends.
    public mutating func remove(_ slot: UInt32) -> Element {
        precondition(slots[Int(slot)].isTaken, "only a value that is there can be removed")
        let element = unsafe pointer(slot).move()
        slots[Int(slot)].isTaken = false
        slots[Int(slot)].generation = (slots[Int(slot)].generation &+ 1) & Token.generationMask
        slots[Int(slot)].nextFree = firstFree
        firstFree = slot
        count -= 1
        return element
    }

    /// Whether a slot still holds the value of that generation.
    public func holds(_ slot: UInt32, generation: UInt32) -> Bool {
        slot < slots.count && slots[Int(slot)].isTaken && slots[Int(slot)].generation == generation
    }

    /// Whether a slot holds any value.
    public func isTaken(_ slot: UInt32) -> Bool { slot < slots.count && slots[Int(slot)].isTaken }

    /// The generation of a slot, whether taken or not.
    public func generation(_ slot: UInt32) -> UInt32 { slots[Int(slot)].generation }

    /// The value in a taken slot, in place. The address holds until the value is removed.
    public subscript(slot: UInt32) -> Element {
        unsafeAddress {
            precondition(slots[Int(slot)].isTaken, "only a value that is there can be read")
            return unsafe UnsafePointer(pointer(slot))
        }
        unsafeMutableAddress {
            precondition(slots[Int(slot)].isTaken, "only a value that is there can be changed")
            return unsafe pointer(slot)
        }
    }

    /// Calls `body` with every taken slot; values may be removed meanwhile, not added.
    public mutating func forEachSlot(_ body: (inout Slab, UInt32) -> Void) {
        for index in slots.indices where slots[index].isTaken { body(&self, UInt32(index)) }
    }

    deinit {
        for index in slots.indices where slots[index].isTaken { unsafe pointer(UInt32(index)).deinitialize(count: 1) }
        for index in unsafe chunks.indices { unsafe chunks[index].deallocate() }
    }
}
